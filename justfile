# Short names for the project's own commands. just is optional (pip install rust-just): each line can be typed as it stands.

set shell := ["bash", "-euo", "pipefail", "-c"]

# lists these
default:
    @just --list --unsorted

# everything that CI runs; or some steps of it: just check format clippy
check *STEPS:
    bash .ci/run {{STEPS}}

# the tests; what follows is passed on: just test -p sluice-queue
test *ARGS="--workspace":
    cargo test {{ARGS}}

fmt:
    cargo fmt --all

# PostgreSQL, a simulated Zoho and the billing recipe, without any set-up
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# four workers, one killed each second, faults on, 2,000 records: each must arrive exactly once; options as in tests/tests/chaos/main.rs
chaos *ARGS:
    cargo test --release -p sluice-tests --test chaos -- --full {{ARGS}}

# measures this machine: commit to request, claim and settle, captured updates (benches/README.md says what each prints)
bench:
    cargo bench -p sluice-tests --bench latency
    cargo run --release -p sluice-queue --example claim_cost
    PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)" cargo test --release -p sluice-producer --test it measure -- --ignored --nocapture

# Sluice's budget beside Redis-based limiters, 20 minutes; options as in benches/limiters/compare.js --help
bench-limiters *ARGS:
    cargo build --release
    npm --prefix benches/limiters ci
    node benches/limiters/compare.js {{ARGS}}

# .sqlx/ anew, after a change of a query or a migration
prepare:
    scripts/sqlx-prepare

# the address of a database for psql and for queries in the making
dev-db:
    @scripts/dev-db
