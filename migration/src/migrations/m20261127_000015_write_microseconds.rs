//! Times that seeds, defaults and other programs wrote to SQLite with fewer than six digits.

use aura_orm::migration::MicrosecondTimes;

const MANAGED: &[&str] = &["created_at", "updated_at", "deleted_at"];

pub(super) const WRITE_MICROSECONDS: MicrosecondTimes = MicrosecondTimes::new(
    "m20261127_000015_write_microseconds",
    &[
        ("users", MANAGED),
        (
            "sessions",
            &["expires_at", "last_seen_at", "created_at", "updated_at"],
        ),
        ("plugins", MANAGED),
        ("workflows", MANAGED),
        ("workflow_versions", &["created_at"]),
        (
            "executions",
            &[
                "lease_until",
                "wait_until",
                "started_at",
                "finished_at",
                "created_at",
            ],
        ),
        ("logs", &["created_at"]),
        ("agents", MANAGED),
    ],
);
