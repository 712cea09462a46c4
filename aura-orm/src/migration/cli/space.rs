//! How much of a SQLite file is free.

use connection::{Config, Target};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use serde::Serialize;
use terminal::WARN;

use super::Failure;
use super::output::Output;

const SPACE: &str = "SELECT f.freelist_count, p.page_count, s.page_size, a.auto_vacuum \
    FROM pragma_freelist_count f, pragma_page_count p, pragma_page_size s, pragma_auto_vacuum a";

/// Free bytes that are reported, where they are more than a quarter of the file as well: more
/// than a service keeps for rows to come.
const NOTABLE: i64 = 16 << 20;

/// The bytes of a SQLite file.
#[derive(Debug, Serialize)]
pub(super) struct Space {
    bytes: i64,
    free_bytes: i64,
    /// Services give free pages back.
    #[serde(skip)]
    incremental: bool,
}

impl Space {
    /// Reads the space of a database; `None` on PostgreSQL, which keeps its own accounts.
    pub(super) async fn read(connection: &DatabaseConnection) -> Result<Option<Self>, Failure> {
        if connection.get_database_backend() != DbBackend::Sqlite {
            return Ok(None);
        }
        let statement = Statement::from_string(DbBackend::Sqlite, SPACE);
        let Some(row) = connection.query_one_raw(statement).await? else {
            return Ok(None);
        };
        let number = |index| row.try_get_by_index::<i64>(index);
        let page = number(2)?;
        Ok(Some(Self {
            bytes: number(1)? * page,
            free_bytes: number(0)? * page,
            incremental: number(3)? == 2,
        }))
    }

    /// Says what is free, when it is much, and what to do about it.
    pub(super) fn report(&self, config: &Config, output: &Output) {
        if self.free_bytes < NOTABLE || self.free_bytes <= self.bytes / 4 {
            return;
        }
        let what = if self.incremental {
            "a service gives them back while it writes nothing".to_owned()
        } else {
            let path = match &config.target {
                Target::Sqlite { path } => path.display().to_string(),
                _ => "FILE".to_owned(),
            };
            format!(
                "they are kept for new rows; to give them back, stop every service and run \
                 `sqlite3 {path} 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'`, which needs room \
                 for what is left twice"
            )
        };
        output.line(format_args!(
            "{WARN}{} of {} MiB are free{WARN:#}: {what}",
            self.free_bytes >> 20,
            self.bytes >> 20
        ));
    }
}
