# `make demo` and `make test` bring everything they need; Python, git and make must be there.
PYTHON = python3
VENV = .venv
TOOLS = .venv-tools
COUNT = .venv-count
FUZZER = build/venv-fuzz
# Processes that run tests: two more than processors, since many tests wait.
TESTERS = $(shell expr `nproc` + 2)
PYTEST_ARGS =
ROUNDS = 5
BENCH_ARGS =
COUNT_ARGS =
MINUTES = 5
CLIENTS = 5000

# The half that decides is covered by branch, all of it.
PURE = gateway.records gateway.protocol gateway.dialects gateway.config gateway.wire.health gateway.guard.bans gateway.guard.captures gateway.guard.limits gateway.guard.shared \
    gateway.telemetry.events gateway.telemetry.catalogue gateway.telemetry.data gateway.telemetry.entries gateway.telemetry.kinds \
    gateway.telemetry.operation gateway.telemetry.explaining gateway.telemetry.failures gateway.telemetry.meter gateway.telemetry.summary gateway.telemetry.report gateway.telemetry.users \
    gateway.telemetry.words gateway.sessions.agreed gateway.app.plan gateway.app.control.messages \
    gateway.app.control.answers gateway.cli.steer.nagios gateway.cli.steer.words gateway.cli.importing

.PHONY: demo docs docs-links pictures man man-check test lint completion deb wheels lock packages bench count files fuzz soak reloads upgrades slow octets cuts channels clean interop acceptance release-check

demo: $(VENV)/gateway
	$(VENV)/bin/twistd --nodaemon --pidfile= starttls-gateway --demo

# With bytecode on the disk, not each process of pytest rewrites the assertions of all tests anew.
test: lint man-check $(TOOLS)/installed $(COUNT)/installed
	PYTHONDONTWRITEBYTECODE= PATH="$(CURDIR)/$(VENV)/bin:$$PATH:$(CURDIR)/$(TOOLS)/bin" $(VENV)/bin/python -m pytest \
	    -n $(TESTERS) --dist loadfile --no-loadscope-reorder $(PURE:%=--cov=%) --cov-branch --cov-fail-under=100 $(PYTEST_ARGS)

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m tests.prose
	$(VENV)/bin/python -m tests.links

# Beside whatever peers are installed; benchmarks/README.md tells what it does.
bench: $(VENV)/installed
	$(VENV)/bin/python -m benchmarks --rounds $(ROUNDS) $(BENCH_ARGS)

# Instructions per session, mail and round trip, with the system's own Python; needs valgrind.
count: $(VENV)/installed $(COUNT)/installed
	$(VENV)/bin/python -m benchmarks.count --python $(COUNT)/bin/python $(COUNT_ARGS)

# The same for a file by FTP and by IMAP, and for long answers of other protocols; three minutes.
files: $(VENV)/installed $(COUNT)/installed
	$(VENV)/bin/python -m benchmarks.files --python $(COUNT)/bin/python $(COUNT_ARGS)
	$(VENV)/bin/python -m pytest -m transfers tests/process/test_count.py

# Each parser for so many minutes; atheris has wheels for some Pythons only, for others say PYTHON=python3.12.
fuzz: $(FUZZER)/installed
	$(FUZZER)/bin/python -m tests.fuzz --minutes $(MINUTES)

soak: $(VENV)/installed
	$(VENV)/bin/python -m soak --minutes $(MINUTES)

# A hundred reloads under load, half of them of a broken file, with one process and with two workers.
reloads: $(VENV)/installed
	$(VENV)/bin/python -m soak.reloads
	$(VENV)/bin/python -m soak.reloads --workers 2

# Twenty upgrades under load, with one process and with two workers.
upgrades: $(VENV)/installed
	$(VENV)/bin/python -m soak.upgrades
	$(VENV)/bin/python -m soak.upgrades --workers 2

# So many clients that say an octet every 9 seconds, and an honest one among them; six minutes.
slow: $(VENV)/installed
	$(VENV)/bin/python -m soak.slow --clients $(CLIENTS)

# A megabyte in single octets, and half of it.
octets: $(VENV)/installed
	$(VENV)/bin/python -m soak.octets

# Ten thousand sessions, cut at random.
cuts: $(VENV)/installed
	$(VENV)/bin/python -m soak.cuts

# Ten thousand FTP sessions, each of which opens a data port.
channels: $(VENV)/installed
	$(VENV)/bin/python -m soak.channels

# The shells' completion, from the command line's parser.
completion: $(VENV)/installed
	PYTHONPATH=. $(VENV)/bin/python config/completion/generate.py

# The Debian package for this system's python3, into dist/; needs debhelper, and the network for its Python packages.
deb: build/venv-deb/installed
	VENV=build/venv-deb config/packages/deb

# Wheels of the gateway and of all it needs, for the image: buildah bud -f Containerfile .
wheels: build/venv-deb/installed
	VENV=build/venv-deb config/packages/wheels dist/wheels

# The site, build/docs/html/index.html, and the manual pages, build/docs/man.  A warning is an error.
docs: build/venv-docs/installed
	build/venv-docs/bin/python -m sphinx -q -W --keep-going -b html docs build/docs/html
	build/venv-docs/bin/python -m sphinx -q -W --keep-going -b man -D today=' ' docs build/docs/man

# Ask all other sites that the pages link to, also each RFC.  Needs the network.
docs-links: build/venv-docs/installed
	build/venv-docs/bin/python -m sphinx -q -b linkcheck docs build/docs/links

# The pictures of the README, of a gateway in front of a real Dovecot.  Needs root and Chromium.
pictures: $(VENV)/installed
	$(VENV)/bin/python -m tests.pictures

# The manual pages that the packages hold; `make test` fails if they are old.
man: docs
	cp build/docs/man/man*/* config/man/

man-check: docs
	@for page in build/docs/man/man*/*; do \
	    diff -I Docutils "$$page" "config/man/$$(basename $$page)" >/dev/null || \
	    { echo "config/man/$$(basename $$page) is old; run make man" >&2; exit 1; }; \
	done

build/venv-docs/installed: setup.cfg
	$(PYTHON) -m venv build/venv-docs
	build/venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

# What builds packages, and nothing of what tests them.
build/venv-deb/installed: Makefile
	$(PYTHON) -m venv build/venv-deb
	build/venv-deb/bin/python -m pip install --quiet --disable-pip-version-check build "setuptools >= 77" "setuptools-scm >= 8"
	touch $@

# Renew the versions that packages hold.
lock: build/venv-lock/installed
	config/packages/lock build/venv-lock/bin/pip-compile

# All that a release must have, into dist/; needs debhelper, and the network.
release-check: $(VENV)/installed
	config/packages/release-check

# Packages built and installed in Debian roots, run under systemd, as a container.  Needs root; ten minutes.
packages: $(VENV)/installed
	$(VENV)/bin/python -m pytest -m packages tests/packages $(PYTEST_ARGS)

# Real clients and servers, each through the gateway; writes docs/compatibility.md.  Needs root.  An
# hour; the first time, when the packages are installed below build/, ten minutes more.
interop: $(VENV)/installed
	$(VENV)/bin/python -m interop

# Everything that takes long, one after the other; some three hours.
acceptance: test packages interop
	$(MAKE) soak MINUTES=30
	$(MAKE) reloads upgrades slow octets cuts channels
	$(MAKE) fuzz MINUTES=30
	$(MAKE) files bench

# The gateway alone, and what the tests need besides.
$(VENV)/gateway: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed: $(VENV)/gateway
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

# Programs that attack and scan, and clients with libraries of their own: sslyze wants an older cryptography.
$(TOOLS)/installed: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check command-injection-tester sslyze "psycopg[binary]" \
	    ldap3 PyMySQL slixmpp
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps axe-playwright-python  # for axe-core
	touch $@

# The figures in the repository are of Debian's build of Python: builds differ by a seventh.
$(COUNT)/installed: setup.cfg pyproject.toml
	/usr/bin/python3 -m venv $(COUNT)
	$(COUNT)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(FUZZER)/installed: Makefile
	$(PYTHON) -m venv $(FUZZER)
	$(FUZZER)/bin/python -m pip install --quiet --disable-pip-version-check atheris
	touch $@

build/venv-lock/installed: Makefile
	$(PYTHON) -m venv build/venv-lock
	build/venv-lock/bin/python -m pip install --quiet --disable-pip-version-check pip-tools
	touch $@

clean:
	rm -rf $(VENV) $(TOOLS) $(COUNT) build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
