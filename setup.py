"""What setup.cfg cannot say: the README, with links that also lead somewhere on a package index."""

import re
from pathlib import Path

from setuptools import setup

FILES = "https://github.com/starttls-gateway/starttls-gateway/blob/main/"
PICTURES = "https://raw.githubusercontent.com/starttls-gateway/starttls-gateway/main/"

readme = Path(__file__).with_name("README.md").read_text("utf-8")
# ![text](docs/pictures/status.png)
readme = re.sub(r"(!\[[^\]]*\])\((?![a-z]+:)", rf"\1({PICTURES}", readme)
setup(
    # [text](docs/tls.md), but neither [text](https://...) nor [text](#heading)
    long_description=re.sub(r"\]\((?![a-z]+:|#)", f"]({FILES}", readme),
    long_description_content_type="text/markdown",
)
