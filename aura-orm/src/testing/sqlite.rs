//! SQLite files, copied from one that was migrated.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use connection::Config;
use sea_orm::DbBackend;
use tokio::sync::Mutex;

use super::{refused, template};
use crate::migration::{Error, Runner};

/// The migrated files of this process, by the fingerprints of their schemas. In memory: no
/// file outlives the process.
static TEMPLATES: Mutex<BTreeMap<u64, Arc<[u8]>>> = Mutex::const_new(BTreeMap::new());

/// Creates a file with this schema.
///
/// # Errors
///
/// As [`super::TemporaryDatabase::create`].
pub(super) async fn create(config: &Config, path: &Path, schema: &[Runner]) -> Result<(), Error> {
    if schema.is_empty() {
        return Ok(());
    }
    let failed = |error| refused(path.display().to_string(), error);
    let fingerprint = template::fingerprint(schema, DbBackend::Sqlite);
    // Held while a template is made: others wait for it instead of migrating too.
    let mut templates = TEMPLATES.lock().await;
    if let Some(template) = templates.get(&fingerprint).cloned() {
        drop(templates);
        std::fs::write(path, template).map_err(failed)?;
        return Ok(());
    }
    for runner in schema {
        runner.up(config).await?;
    }
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    // The last connection has copied the WAL into the file.
    if !Path::new(&wal).exists() {
        let template = std::fs::read(path).map_err(failed)?;
        templates.insert(fingerprint, template.into());
    }
    Ok(())
}
