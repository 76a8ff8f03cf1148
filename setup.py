"""What setup.cfg cannot say: the README, with links that also lead somewhere on a package index."""

import re
from pathlib import Path

from setuptools import setup

FILES = "https://github.com/starttls-gateway/starttls-gateway/blob/main/"

readme = Path(__file__).with_name("README.md").read_text("utf-8")
setup(
    # [text](docs/tls.md), but neither [text](https://...) nor [text](#heading)
    long_description=re.sub(r"\]\((?![a-z]+:|#)", f"]({FILES}", readme),
    long_description_content_type="text/markdown",
)
