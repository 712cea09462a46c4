# `just` lists the recipes. Each is one command that also works without just.

_default:
    @just --list

# A migrated database with demo data in ./data/aura.db
start:
    cargo run -p seed -- --migrate

# Every test, on SQLite and on a throw-away PostgreSQL
test *arguments:
    ./scripts/test {{ arguments }}

# What CI runs
ci:
    ./.ci/run

# Entities, schema snapshots and docs/schema.md, from the migrations
entities:
    ./scripts/with-postgres cargo xtask generate

# The promises of docs/reliability.md under force, so many seconds of each
torture seconds='120':
    AURA_TORTURE={{ seconds }} ./scripts/test -p torture --no-capture
    AURA_KILLS=all AURA_ROUNDS=20 ./scripts/test --test crash --test concurrency
    ./scripts/with-postgres cargo run -p torture --example refusals -- 1000
    AURA_WATCHED=10000 ./scripts/test -p aura-db --test state_machine
    AURA_ABORTS=10000 ./scripts/test -p aura-db --test facade given_up
    PROPTEST_CASES=1000000 ./scripts/test -p connection fuzz

# aura-db beside its peers, on SQLite and a throw-away PostgreSQL that waits for
# its disk; `just bench --help` has more
bench *arguments='--write-docs --json target/bench.json':
    ./scripts/with-postgres -o fsync=on cargo run --release -p bench -- {{ arguments }}

# What is tuned, statement by statement
micro *arguments:
    cargo bench -p aura-orm -p entity --bench statements --bench documents -- {{ arguments }}

# How much better the second of two runs is
bench-compare before after:
    cargo run --release -p bench -- compare {{ before }} {{ after }}

# Licences, duplicates, sources and known vulnerabilities of the dependencies
audit:
    cargo deny check
