# What a fresh Debian machine with Rust needs: `make demo` and `make test`.
# Both install what they lack with apt-get (as root or through sudo) and say so.

.PHONY: build demo demo-spark test test-vm lint bench clean

build: needs-build
	cargo build --release --workspace

demo: needs-demo
	cargo build --release --workspace
	examples/demo

# Unmodified Spark: installs Java, and pyspark in a virtual environment below target/.
demo-spark: needs-demo-spark
	cargo build --release --workspace
	examples/demo-spark

test: needs-test
	tests/run

# On a guest booted with systemd and cgroup v2. BOBBIN_VM names the tool that runs one: see tests/vm/run.
test-vm: needs-build
	cargo build --workspace
	BOBBIN_PROGRAMS=target/debug tests/vm/run

lint:
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings

# The benchmarks of docs/BENCHMARKS.md, all ratios in one run; crun, runc, bwrap, Slurm and
# HyperQueue beside ours.
bench: needs-bench
	cargo build --release --workspace
	target/release/bobbin-bench launch
	target/release/bobbin-bench submit-e2e --rounds 200 --vs floor,slurm
	target/release/bobbin-bench submit-e2e --rounds 200 --resident
	target/release/bobbin-bench submit-rate --rounds 7
	target/release/bobbin-bench logs --rounds 10
	target/release/bobbin-bench memory
	target/release/bobbin-bench storm
	-test -x target/hyperqueue/bin/python3 || { python3 -m venv target/hyperqueue && target/hyperqueue/bin/pip install --quiet hyperqueue; }
	target/release/bobbin-bench map
	target/release/bobbin-bench kill
	target/release/bobbin-bench am-restart
	tests/spark-install 3.5.4 flights jars-3.5.4
	target/release/bobbin-bench spark

clean:
	cargo clean

.PHONY: needs-build needs-demo needs-demo-spark needs-test needs-bench
needs-build needs-demo needs-demo-spark needs-test needs-bench:
	@tests/needs $(@:needs-%=%)
