//! The columns that tables are made of, so that each kind is spelt once and
//! means the same on both backends.
//!
//! * Every integer is a bigint: SQLite's `integer` reads as `i64`.
//! * Text sorts by code point on both: `COLLATE "C"` and SQLite's BINARY.
//! * Time is UTC; on SQLite RFC 3339 text with `T`, six digits of fraction and `+00:00`.
//!   It sorts correctly with fewer digits too, but isn't equal to the same moment
//!   (`CURRENT_TIMESTAMP` writes another shape, and the two don't compare).
//! * Foreign keys stand in `CREATE TABLE`, because SQLite can't add them later.

use sea_orm::DbBackend;
use sea_orm::sea_query::{
    ColumnDef, ColumnType, ConditionalStatement, Expr, ForeignKey, ForeignKeyAction,
    ForeignKeyCreateStatement, Index, IndexCreateStatement, StringLen, Table, TableCreateStatement,
};

/// Builds the tables of one backend.
#[derive(Clone, Copy)]
pub struct Columns {
    backend: DbBackend,
}

impl Columns {
    /// Returns the columns of this backend.
    #[must_use]
    pub fn of(backend: DbBackend) -> Self {
        Self { backend }
    }

    fn sqlite(self) -> bool {
        self.backend == DbBackend::Sqlite
    }

    /// Begins a table with its auto-incremented key.
    #[must_use]
    pub fn table(self, name: &'static str) -> TableCreateStatement {
        let mut id = ColumnDef::new("id");
        id.big_integer().not_null().auto_increment().primary_key();
        Table::create().table(name).col(id).take()
    }

    /// Begins a table with another key than a number that counts up.
    #[must_use]
    pub fn table_by(self, name: &'static str, mut key: ColumnDef) -> TableCreateStatement {
        key.not_null().primary_key();
        Table::create().table(name).col(key).take()
    }

    /// Adds the columns that every managed table ends its own columns with: times,
    /// soft delete and audit trail. The user ids have no foreign key, because
    /// the trail outlives the user.
    pub fn managed(self, table: &mut TableCreateStatement) {
        table
            .col(self.created("created_at"))
            .col(self.created("updated_at"))
            .col(self.time("deleted_at"))
            .col(self.integer("created_by"))
            .col(self.integer("updated_by"));
    }

    /// Returns a column of text of at most `length` characters, enforced on both backends.
    #[must_use]
    pub fn string(self, name: &'static str, length: u32) -> ColumnDef {
        self.conventional(ColumnDef::new(name).string_len(length).take())
    }

    /// Returns a column of an e-mail address, which is compared as it is stored: trimmed and in
    /// lower case.
    #[must_use]
    pub fn email(self, name: &'static str) -> ColumnDef {
        const LENGTH: u32 = 160;
        let mut column = ColumnDef::new(name);
        column.string_len(LENGTH).not_null();
        // A column has one condition, so SQLite's limit stands in it too.
        column.check(Expr::cust(format!(
            "\"{name}\" = lower(trim(\"{name}\")) AND length(\"{name}\") <= {LENGTH}"
        )));
        self.collated(column)
    }

    /// Returns a column of text without a limit of the database's.
    #[must_use]
    pub fn text(self, name: &'static str) -> ColumnDef {
        self.conventional(ColumnDef::new(name).text().take())
    }

    fn collated(self, mut column: ColumnDef) -> ColumnDef {
        if !self.sqlite() {
            column.extra("COLLATE \"C\"");
        }
        column
    }

    /// Returns a column of one of a closed set of words; raw SQL can't store another.
    #[must_use]
    pub fn one_of(self, name: &'static str, words: &[&str]) -> ColumnDef {
        let list = words
            .iter()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>()
            .join(", ");
        let mut column = ColumnDef::new(name);
        column
            .string_len(16)
            .not_null()
            .check(Expr::cust(format!("\"{name}\" IN ({list})")));
        self.collated(column)
    }

    /// Returns a column of a whole number.
    #[must_use]
    pub fn integer(self, name: &'static str) -> ColumnDef {
        ColumnDef::new(name).big_integer().take()
    }

    /// Returns a column of a UUID: `uuid` on PostgreSQL, 16 bytes on SQLite, as `SeaORM`
    /// binds it.
    #[must_use]
    pub fn uuid(self, name: &'static str) -> ColumnDef {
        let mut column = ColumnDef::new(name);
        if self.sqlite() {
            column
                .blob()
                .check(Expr::cust(format!("length(\"{name}\") = 16")));
        } else {
            column.uuid();
        }
        column
    }

    /// Returns a column of yes or no.
    #[must_use]
    pub fn flag(self, name: &'static str, default: bool) -> ColumnDef {
        let mut column = ColumnDef::new(name);
        column.boolean().not_null().default(default);
        self.conventional(column)
    }

    /// Returns a column of a moment in UTC.
    #[must_use]
    pub fn time(self, name: &'static str) -> ColumnDef {
        self.conventional(ColumnDef::new(name).timestamp_with_time_zone().take())
    }

    /// Returns a column of a moment that the database fills in when it is left out.
    #[must_use]
    pub fn created(self, name: &'static str) -> ColumnDef {
        let mut column = self.time(name);
        column.not_null().default(self.now());
        column
    }

    /// Returns the time of a statement.
    pub(super) fn now(self) -> Expr {
        Expr::cust(if self.sqlite() {
            "strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now')"
        } else {
            "CURRENT_TIMESTAMP"
        })
    }

    /// Returns a column of a JSON document that is read and written whole: kept as it was written.
    /// (`json_valid(NULL)` is NULL in our SQLite and 0 in older ones, which
    /// would refuse a dump.)
    /// Documents stand last in their tables, so that reading the columns
    /// before them doesn't touch their pages.
    #[must_use]
    pub fn document(self, name: &'static str) -> ColumnDef {
        self.conventional(ColumnDef::new(name).json().take())
    }

    /// Returns a column of a JSON document that is searched. PostgreSQL's `jsonb` can't hold
    /// `\u0000`, so SQLite refuses it too; the doubled backslashes are taken
    /// out first, because `\\u0000` is six harmless characters.
    #[must_use]
    pub fn searchable(self, name: &'static str) -> ColumnDef {
        self.conventional(ColumnDef::new(name).json_binary().take())
    }

    /// Adds to a column what its type needs to mean the same on both backends: a collation,
    /// or the condition that SQLite's types don't have.
    pub(super) fn conventional(self, mut column: ColumnDef) -> ColumnDef {
        let kind = column.get_column_type();
        if matches!(
            kind,
            Some(ColumnType::Char(_) | ColumnType::String(_) | ColumnType::Text)
        ) && !self.sqlite()
        {
            return self.collated(column);
        }
        let name = column.get_column_name();
        let condition = match kind {
            Some(ColumnType::String(StringLen::N(length))) => {
                format!("length(\"{name}\") <= {length}")
            }
            Some(ColumnType::Boolean) => format!("\"{name}\" IN (0, 1)"),
            Some(ColumnType::TimestampWithTimeZone) => {
                format!("\"{name}\" GLOB '????-??-??T??:??:??*+00:00'")
            }
            Some(ColumnType::Json) => format!("\"{name}\" IS NULL OR json_valid(\"{name}\")"),
            Some(ColumnType::JsonBinary) => format!(
                r#""{name}" IS NULL OR json_valid("{name}") AND instr(replace("{name}", '\\', ''), '\u0000') = 0"#
            ),
            _ => return column,
        };
        if self.sqlite() {
            column.check(Expr::cust(condition));
        }
        column
    }

    /// Returns a foreign key whose rows go with the row that they refer to.
    #[must_use]
    pub fn cascade(
        self,
        table: &'static str,
        column: &'static str,
        parent: &'static str,
    ) -> ForeignKeyCreateStatement {
        ForeignKey::create()
            .name(format!("fk_{table}_{column}"))
            .from(table, column)
            .to(parent, "id")
            .on_delete(ForeignKeyAction::Cascade)
            .take()
    }

    /// Returns an index, named after its columns. Composite uniques are made here and
    /// not inside `CREATE TABLE`, where the entity generator misses them on
    /// SQLite.
    #[must_use]
    pub fn index(self, table: &str, columns: &[&str]) -> IndexCreateStatement {
        let mut index = Index::create();
        index
            .name(format!("idx_{table}_{}", columns.join("_")))
            .table(table.to_owned());
        for column in columns {
            index.col((*column).to_owned());
        }
        index
    }

    /// Returns an index of the rows that meet a condition, named after what they are.
    /// A search uses it when it names the condition itself.
    #[must_use]
    pub fn partial(
        self,
        table: &'static str,
        what: &'static str,
        columns: &[&'static str],
        condition: &'static str,
    ) -> IndexCreateStatement {
        let mut index = self.index(table, columns);
        index
            .name(format!("idx_{table}_{what}"))
            .cond_where(Expr::cust(condition));
        index
    }

    /// Returns a unique index.
    #[must_use]
    pub fn unique(self, table: &str, columns: &[&str]) -> IndexCreateStatement {
        let mut index = self.index(table, columns);
        index
            .name(format!("uq_{table}_{}", columns.join("_")))
            .unique();
        index
    }

    /// Returns the SQL of a table and of its indexes.
    #[must_use]
    pub fn sql(
        self,
        table: &TableCreateStatement,
        indexes: &[IndexCreateStatement],
    ) -> Vec<String> {
        let mut statements = vec![super::create_table(self.backend, table)];
        statements.extend(
            indexes
                .iter()
                .map(|index| super::create_index(self.backend, index)),
        );
        statements
    }
}
