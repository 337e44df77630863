# SPDX-License-Identifier: MIT
# The face of the build; meson does the work. `make run` and `make test` install what is missing.

B ?= build

.PHONY: all run test bench conformance sanitize fuzz coverage install deps clean

all: deps
	@tools/build $(B)

run: all
	@tools/run-demo $(B)

test: all
	@tools/test $(B)

bench: all
	@tools/bench $(B)

conformance: all
	@tools/conformance $(B)
	@tests/clients/run --install $(B)

sanitize: deps
	@tools/sanitize

fuzz: deps
	@tools/fuzz

coverage: deps
	@tools/coverage

install: all
	@meson install -C $(B) --quiet

deps:
	@tools/deps

clean:
	@rm -rf $(B) build-*
