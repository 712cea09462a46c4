//! What an entity declares of its table, in the terms of a step: the types of the entity
//! with the conventions of [`Columns`].

use std::fmt::Write;

use sea_orm::sea_query::extension::postgres::Type;
use sea_orm::sea_query::{
    ColumnDef, ColumnType, DynIden, Expr, ForeignKey, ForeignKeyAction, ForeignKeyCreateStatement,
    Index, IndexCreateStatement, IntoIden, PostgresQueryBuilder, StringLen, Table,
    TableCreateStatement, TableRef,
};
use sea_orm::{DbBackend, EntityTrait, Schema};

use crate::migration::columns::Columns;

/// A registered entity.
pub(in crate::migration) struct EntityTable {
    pub(in crate::migration) name: String,
    /// An entity that names one can't be moved by `DB_SCHEMA`.
    pub(in crate::migration) schema: Option<String>,
    table: fn() -> TableCreateStatement,
    indexes: fn() -> Vec<IndexCreateStatement>,
}

impl EntityTable {
    pub(in crate::migration) fn of<E: EntityTrait>(entity: &E) -> Self {
        // SQLite's form has the words of an enumeration in it.
        Self {
            name: entity.table_name().to_owned(),
            schema: entity.schema_name().map(str::to_owned),
            table: || Schema::new(DbBackend::Sqlite).create_table_from_entity(E::default()),
            indexes: || Schema::new(DbBackend::Sqlite).create_index_from_entity(E::default()),
        }
    }
}

/// A foreign key.
pub(super) struct Reference {
    pub(super) columns: Vec<String>,
    pub(super) table: String,
    pub(super) parents: Vec<String>,
    on_delete: Option<ForeignKeyAction>,
    on_update: Option<ForeignKeyAction>,
}

/// A table as its entity declares it.
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) columns: Vec<ColumnDef>,
    pub(super) primary_key: Vec<String>,
    pub(super) references: Vec<Reference>,
    /// The columns of each unique index.
    pub(super) uniques: Vec<Vec<String>>,
    /// The columns of each other index: those of the entity, and one for each foreign key
    /// that no other index serves.
    pub(super) indexes: Vec<Vec<String>>,
}

impl Declared {
    pub(super) fn of(entity: &EntityTable) -> Self {
        let table = (entity.table)();
        let columns = table.get_columns().clone();
        let named = |is: fn(&ColumnDef) -> bool| {
            let columns = columns.iter().filter(move |column| is(column));
            columns.map(ColumnDef::get_column_name)
        };
        let mut primary_key: Vec<String> =
            named(|column| column.get_column_spec().primary_key).collect();
        for index in table.get_indexes() {
            if index.is_primary_key() {
                primary_key = index.get_index_spec().get_column_names();
            }
        }
        let references: Vec<Reference> = table
            .get_foreign_key_create_stmts()
            .iter()
            .map(reference)
            .collect();
        let is_reference = |column: &String| {
            let mut references = references.iter();
            references.any(|reference| reference.columns[..] == [column.clone()])
        };
        let mut uniques: Vec<Vec<String>> = named(|column| column.get_column_spec().unique)
            .map(|column| vec![column])
            .collect();
        let mut indexes = Vec::new();
        for index in (entity.indexes)() {
            let mut columns = index.get_index_spec().get_column_names();
            if index.is_unique_key() {
                // So that it serves the foreign key too.
                columns.sort_by_key(|column| !is_reference(column));
                uniques.push(columns);
            } else {
                indexes.push(columns);
            }
        }
        for reference in &references {
            let served = |columns: &Vec<String>| columns.starts_with(&reference.columns);
            let is_served =
                uniques.iter().any(served) || indexes.iter().any(served) || served(&primary_key);
            if !is_served {
                indexes.push(reference.columns.clone());
            }
        }
        Self {
            name: entity.name.clone(),
            columns,
            primary_key,
            references,
            uniques,
            indexes,
        }
    }

    /// Returns the `CREATE TABLE` of a backend.
    pub(super) fn table(&self, backend: DbBackend) -> TableCreateStatement {
        let mut table = Table::create();
        table.table(self.name.clone());
        for column in &self.columns {
            let mut column = self::column(backend, column);
            match &self.primary_key[..] {
                [key] if *key == column.get_column_name() => {
                    column.primary_key();
                }
                _ => {}
            }
            table.col(column);
        }
        if self.primary_key.len() > 1 {
            let mut key = Index::create();
            for column in &self.primary_key {
                key.col(column.clone());
            }
            table.primary_key(&mut key);
        }
        for reference in &self.references {
            table.foreign_key(&mut reference.statement(&self.name));
        }
        table
    }

    /// Returns the enumerations of the columns.
    pub(super) fn types(&self) -> Vec<Enumeration> {
        let mut types = Vec::new();
        for enumeration in self.columns.iter().filter_map(enumeration) {
            if !types.contains(&enumeration) {
                types.push(enumeration);
            }
        }
        types
    }

    /// Returns an index, named as [`Columns`] names them.
    pub(super) fn index(&self, columns: &[String], unique: bool) -> IndexCreateStatement {
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        let all = Columns::of(DbBackend::Sqlite);
        let mut index = if unique {
            all.unique(&self.name, &names)
        } else {
            all.index(&self.name, &names)
        };
        // PostgreSQL cuts longer names itself, and SQLite doesn't.
        let name = index.get_index_spec().get_name().unwrap_or_default();
        let name: String = name.chars().take(63).collect();
        index.name(name);
        index
    }
}

fn reference(statement: &ForeignKeyCreateStatement) -> Reference {
    let key = statement.get_foreign_key();
    let table = match key.get_ref_table() {
        Some(TableRef::Table(name, _)) => name.1.to_string(),
        _ => String::new(),
    };
    Reference {
        columns: key.get_columns(),
        table,
        parents: key.get_ref_columns(),
        on_delete: key.get_on_delete(),
        on_update: key.get_on_update(),
    }
}

impl Reference {
    fn name(&self, table: &str) -> String {
        format!("fk_{table}_{}", self.columns.join("_"))
    }

    fn statement(&self, table: &str) -> ForeignKeyCreateStatement {
        let mut key = ForeignKey::create();
        key.name(self.name(table))
            .from_tbl(table.to_owned())
            .to_tbl(self.table.clone());
        for column in &self.columns {
            key.from_col(column.clone());
        }
        for column in &self.parents {
            key.to_col(column.clone());
        }
        if let Some(action) = self.on_delete {
            key.on_delete(action);
        }
        if let Some(action) = self.on_update {
            key.on_update(action);
        }
        key
    }

    /// Returns the constraint behind a column that is added. Both backends take it there.
    pub(super) fn inline(&self, table: &str) -> String {
        let mut sql = format!(
            " CONSTRAINT \"{}\" REFERENCES \"{}\" (\"{}\")",
            self.name(table),
            self.table,
            self.parents.join("\", \"")
        );
        for (when, action) in [("DELETE", self.on_delete), ("UPDATE", self.on_update)] {
            if let Some(action) = action {
                let _ = write!(sql, " ON {when} {}", words(action));
            }
        }
        sql
    }
}

fn words(action: ForeignKeyAction) -> &'static str {
    match action {
        ForeignKeyAction::Restrict => "RESTRICT",
        ForeignKeyAction::Cascade => "CASCADE",
        ForeignKeyAction::SetNull => "SET NULL",
        ForeignKeyAction::SetDefault => "SET DEFAULT",
        _ => "NO ACTION",
    }
}

/// Returns a column as a step makes it. Its uniqueness is an index's, and its key the
/// table's.
pub(super) fn column(backend: DbBackend, declared: &ColumnDef) -> ColumnDef {
    let name = declared.get_column_name();
    let spec = declared.get_column_spec();
    let declared = declared.get_column_type().unwrap_or(&ColumnType::Text);
    let counts = spec.auto_increment && spec.primary_key && is_integer(declared);
    let kind = match backend {
        // SQLite counts no other type.
        DbBackend::Sqlite if counts => ColumnType::BigInteger,
        _ => kind(backend, declared),
    };
    let mut column = ColumnDef::new_with_type(name.clone(), kind);
    let is_required = spec.nullable == Some(false);
    if is_required {
        column.not_null();
    }
    let columns = Columns::of(backend);
    if let Some(default) = &spec.default {
        column.default(default.clone());
    } else if is_required && is_written(&name, declared) {
        column.default(columns.now());
    }
    if counts {
        column.auto_increment();
    }
    if let (DbBackend::Sqlite, ColumnType::Enum { variants, .. }) = (backend, declared) {
        let list: Vec<String> = variants.iter().map(quoted).collect();
        column.check(Expr::cust(format!("\"{name}\" IN ({})", list.join(", "))));
    }
    let mut column = columns.conventional(column);
    if let Some(extra) = &spec.extra {
        let both = match &column.get_column_spec().extra {
            Some(collation) => format!("{collation} {extra}"),
            None => extra.clone(),
        };
        column.extra(both);
    }
    column
}

/// Returns whether the database fills in a time that is left out, as in [`Columns::managed`].
fn is_written(name: &str, kind: &ColumnType) -> bool {
    matches!(name, "created_at" | "updated_at") && matches!(kind, ColumnType::TimestampWithTimeZone)
}

fn is_integer(kind: &ColumnType) -> bool {
    use ColumnType::{
        BigInteger, BigUnsigned, Integer, SmallInteger, SmallUnsigned, TinyInteger, TinyUnsigned,
        Unsigned,
    };
    matches!(
        kind,
        TinyInteger
            | SmallInteger
            | Integer
            | BigInteger
            | TinyUnsigned
            | SmallUnsigned
            | Unsigned
            | BigUnsigned
    )
}

/// Returns the type of a column on a backend.
fn kind(backend: DbBackend, declared: &ColumnType) -> ColumnType {
    match (backend, declared) {
        (_, ColumnType::String(StringLen::None | StringLen::Max)) => ColumnType::Text,
        (_, ColumnType::Year) => ColumnType::SmallInteger,
        (DbBackend::Postgres, ColumnType::Enum { name, .. }) => ColumnType::Custom(name.clone()),
        (DbBackend::Sqlite, kind) if lacked_by_sqlite(kind).is_some() => {
            ColumnType::Custom("text".into_iden())
        }
        (_, kind) => kind.clone(),
    }
}

/// Returns what a type is called that SQLite has nothing like.
pub(super) fn lacked_by_sqlite(kind: &ColumnType) -> Option<&'static str> {
    Some(match kind {
        ColumnType::Array(_) => "an array",
        ColumnType::Vector(_) => "a vector",
        ColumnType::Cidr | ColumnType::Inet | ColumnType::MacAddr => "a network address",
        ColumnType::Bit(_) | ColumnType::VarBit(_) => "a string of bits",
        ColumnType::LTree => "a path of labels",
        ColumnType::Interval(..) => "an interval",
        _ => return None,
    })
}

/// A type of PostgreSQL's.
#[derive(PartialEq, Eq)]
pub(super) struct Enumeration {
    pub(super) create: String,
    pub(super) drop: String,
}

/// Returns the type of a column that is an enumeration.
pub(super) fn enumeration(column: &ColumnDef) -> Option<Enumeration> {
    let Some(ColumnType::Enum { name, variants }) = column.get_column_type() else {
        return None;
    };
    let mut create = Type::create();
    create.as_enum(name.clone()).values(variants.clone());
    let mut drop = Type::drop();
    drop.name(name.clone());
    Some(Enumeration {
        create: create.to_string(PostgresQueryBuilder),
        drop: drop.to_string(PostgresQueryBuilder),
    })
}

fn quoted(word: &DynIden) -> String {
    format!("'{}'", word.to_string().replace('\'', "''"))
}
