//! The tables, beside AURA's.

pub(crate) mod api_keys;
pub(crate) mod credentials;
pub(crate) mod deliveries;

use aura_db::migration::Runner;

/// Returns what migrates them, after AURA's own.
pub(crate) fn runner() -> Runner {
    Runner::builder()
        .history("own_tables_migrations")
        .after(aura_db::migration::runner())
        .steps(vec![
            Box::new(credentials::CREATE),
            Box::new(api_keys::CREATE),
            Box::new(deliveries::CREATE),
        ])
        .build()
}
