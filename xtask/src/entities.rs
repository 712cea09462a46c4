//! Entities from SeaORM's own generator. It is called as a library, on an open
//! connection, so that no URL is built and no tool has to be installed.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use sea_orm::sea_query::TableCreateStatement;
use sea_orm::{DatabaseConnection, DbBackend};
use sea_orm_codegen::{
    BannerVersion, BigIntegerType, DateTimeCrate, EntityFormat, EntityTransformer,
    EntityWriterContext, WithPrelude, WithSerde,
};

use crate::{Failure, refine};

/// The files by name, refined and formatted, and the Mermaid diagram.
pub(crate) async fn generate(
    connection: &DatabaseConnection,
    tables: &[&str],
) -> Result<(BTreeMap<String, String>, String), Failure> {
    let mut statements = discover(connection).await?;
    let position = |table: &TableCreateStatement| {
        let name = table
            .get_table_name()
            .map(|table| format!("{table:?}"))
            .unwrap_or_default();
        tables
            .iter()
            .position(|known| name.contains(&format!("\"{known}\"")))
    };
    statements.retain(|table| position(table).is_some());
    statements.sort_by_key(position);

    let writer = EntityTransformer::transform(statements)?;
    let diagram = writer.generate_er_diagram();
    let context = EntityWriterContext::new(
        EntityFormat::Dense,
        WithPrelude::None,
        WithSerde::Serialize,
        false,
        DateTimeCrate::Chrono,
        BigIntegerType::I64,
        None,
        false,
        false,
        false,
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        false,
        true,
        BannerVersion::Patch,
    );
    let mut files = BTreeMap::new();
    for file in writer.generate(&context).files {
        let formatted = rustfmt(&file.content)?;
        let refined = rustfmt(&refine::refine(&file.name, &formatted)?)?;
        files.insert(file.name, refined);
    }
    Ok((files, diagram))
}

async fn discover(connection: &DatabaseConnection) -> Result<Vec<TableCreateStatement>, Failure> {
    Ok(
        if connection.get_database_backend() == DbBackend::Postgres {
            let pool = connection.get_postgres_connection_pool().clone();
            let discovery = sea_schema::postgres::discovery::SchemaDiscovery::new(pool, "public");
            discovery
                .discover()
                .await?
                .tables
                .iter()
                .map(sea_schema::postgres::def::TableDef::write)
                .collect()
        } else {
            let pool = connection.get_sqlite_connection_pool().clone();
            let discovery = sea_schema::sqlite::discovery::SchemaDiscovery::new(pool);
            let schema = discovery.discover().await?.merge_indexes_into_table();
            schema
                .tables
                .iter()
                .map(sea_schema::sqlite::def::TableDef::write)
                .collect()
        },
    )
}

fn rustfmt(code: &str) -> Result<String, Failure> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| {
            format!("cannot run rustfmt ({error}); install it with `rustup component add rustfmt`")
        })?;
    child
        .stdin
        .take()
        .ok_or("rustfmt takes no input")?
        .write_all(code.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        Err("rustfmt failed".into())
    }
}
