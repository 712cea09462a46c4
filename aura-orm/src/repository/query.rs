//! Filters and orders that a client composes at run time.

use std::fmt::Write as _;

use sea_orm::sea_query::{ArrayType, Expr, LikeExpr, SimpleExpr};
use sea_orm::{ColumnTrait, Condition, DbBackend, ExprTrait, IdenStatic, ModelTrait};
use serde_json::Value as Json;

use super::query_value::value_of;
use super::{Repository, RepositoryEntity, RepositoryError};
use crate::error::{Error, FieldError};
use crate::page::{MAX_SORT_COLUMNS, Page, PageRequest, Sort};

/// The most conditions of a filter.
pub const MAX_CONDITIONS: usize = 50;

/// The most values of `in` and `not_in`.
pub const MAX_VALUES: usize = 100;

/// The longest text to search for, in characters.
pub const MAX_SEARCH: usize = 200;

/// How deep `and`, `or` and `not` may be nested.
const MAX_DEPTH: usize = 5;

const OPERATORS: [&str; 12] = [
    "eq",
    "ne",
    "gt",
    "gte",
    "lt",
    "lte",
    "in",
    "not_in",
    "contains",
    "starts_with",
    "ends_with",
    "is_null",
];

/// A query whose fields, operators, values and order are strings or JSON, as a client
/// sends them. From [`Repository::query`]. What is wrong is reported by the call that runs
/// it, all at once.
///
/// | operator | rows whose value |
/// |---|---|
/// | `eq`, `ne` | is this, or isn't; also `null` |
/// | `gt`, `gte`, `lt`, `lte` | is greater, or less; NULL is neither |
/// | `in`, `not_in` | is one of these, or none |
/// | `contains`, `starts_with`, `ends_with` | holds this text, without ASCII case and without wildcards |
/// | `is_null` | is NULL, or isn't, by `true` and `false` |
///
/// Values are JSON of the column's type; numbers, booleans and times may be text.
#[derive(Debug)]
#[must_use = "`list` or `count` runs it"]
pub struct Query<'r, E: RepositoryEntity, X = Error> {
    repository: &'r Repository<E, X>,
    allowed: Vec<E::Column>,
    condition: Condition,
    conditions: usize,
    sort: Sort<E>,
    wrong: Vec<FieldError>,
}

impl<E: RepositoryEntity, X: RepositoryError> Repository<E, X> {
    /// Begins a query that a client composes, of these columns and no others.
    ///
    /// ```
    /// # use aura_orm::repository::{Repository, RepositoryEntity};
    /// # use aura_orm::PageRequest;
    /// # use sea_orm::IdenStatic;
    /// # use serde_json::json;
    /// # async fn example<E: RepositoryEntity>(
    /// #     credentials: Repository<E>, name: E::Column, uses: E::Column,
    /// # ) -> Result<(), aura_orm::Error> {
    /// let page = credentials
    ///     .query([name, uses])
    ///     .filter(&json!({ "name": { "contains": "git" }, "or": [{ "uses": 0 }, { "uses": { "gt": 9 } }] }))
    ///     .and("uses", "lt", 100)
    ///     .sort("-uses,name")
    ///     .list(PageRequest::first(50))
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn query(&self, allowed: impl IntoIterator<Item = E::Column>) -> Query<'_, E, X> {
        Query {
            repository: self,
            allowed: allowed.into_iter().collect(),
            condition: Condition::all(),
            conditions: 0,
            sort: Sort::default(),
            wrong: Vec::new(),
        }
    }
}

impl<E: RepositoryEntity, X: RepositoryError> Query<'_, E, X> {
    /// Adds a condition.
    pub fn and(mut self, field: &str, operator: &str, value: impl Into<Json>) -> Self {
        let condition = self.condition_of(field, operator, &value.into());
        if let Some(condition) = condition {
            self.condition = self.condition.add(condition);
        }
        self
    }

    /// Adds the conditions of a JSON object: `{"field": value}`,
    /// `{"field": {"operator": value, …}, …}`, and `and`, `or` and `not` with filters.
    pub fn filter(mut self, filter: &Json) -> Self {
        let condition = self.filter_of(filter, 0);
        self.condition = self.condition.add(condition);
        self
    }

    /// Sorts by fields with commas between them, descending where a field has a `-`.
    /// An empty text sorts by the key.
    pub fn sort(mut self, sort: &str) -> Self {
        let mut order = Sort::default();
        let fields: Vec<&str> = sort.split(',').filter(|field| !field.is_empty()).collect();
        if fields.len() > MAX_SORT_COLUMNS {
            self.refuse(
                "sort",
                format!("must have at most {MAX_SORT_COLUMNS} fields"),
            );
        }
        for field in fields.into_iter().take(MAX_SORT_COLUMNS) {
            let (name, descending) = match field.strip_prefix('-') {
                Some(name) => (name, true),
                None => (field, false),
            };
            if let Some(column) = self.column("sort", name) {
                order = if descending {
                    order.then_desc(column)
                } else {
                    order.then_asc(column)
                };
            }
        }
        self.sort = order;
        self
    }

    /// Returns a page of the rows.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] with all that is wrong; as [`Repository::list`].
    pub async fn list(self, page: PageRequest) -> Result<Page<E::Model>, X> {
        let condition = refused(self.wrong, self.condition)?;
        self.repository.list(condition, &self.sort, page).await
    }

    /// Returns the number of rows.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] with all that is wrong; as [`Repository::count`].
    pub async fn count(self) -> Result<u64, X> {
        let condition = refused(self.wrong, self.condition)?;
        self.repository.count(condition).await
    }

    fn refuse(&mut self, field: &'static str, problem: impl Into<String>) {
        self.wrong.push(FieldError::new(field, problem));
    }

    /// Finds a column that is allowed.
    fn column(&mut self, of: &'static str, name: &str) -> Option<E::Column> {
        let mut allowed = self.allowed.iter();
        let found = allowed.find(|column| column.as_str() == name).copied();
        if found.is_none() {
            let mut names = String::new();
            for column in &self.allowed {
                let comma = if names.is_empty() { "" } else { ", " };
                let _ = write!(names, "{comma}{}", column.as_str());
            }
            self.refuse(
                of,
                format!("has no field {}; there are {names}", quoted(name)),
            );
        }
        found
    }

    fn filter_of(&mut self, filter: &Json, depth: usize) -> Condition {
        let mut all = Condition::all();
        let Some(fields) = filter.as_object() else {
            self.refuse("filter", "must be an object");
            return all;
        };
        if depth > MAX_DEPTH {
            self.refuse("filter", format!("must be nested at most {MAX_DEPTH} deep"));
            return all;
        }
        for (name, value) in fields {
            match &**name {
                "and" | "or" => {
                    let mut group = if name == "or" {
                        Condition::any()
                    } else {
                        Condition::all()
                    };
                    let Some(filters) = value.as_array() else {
                        self.refuse("filter", format!("`{name}` must have a list of filters"));
                        continue;
                    };
                    if filters.is_empty() && name == "or" {
                        // None of no filters is met.
                        group = group.add(Expr::val(1).eq(0));
                    }
                    for filter in filters {
                        group = group.add(self.filter_of(filter, depth + 1));
                    }
                    all = all.add(group);
                }
                "not" => {
                    let filter = self.filter_of(value, depth + 1);
                    // Of NULL too: what is unknown is not met.
                    all = all.add(is_not_true(filter, self.repository.executor.backend()));
                }
                _ => match value {
                    Json::Object(operators) => {
                        for (operator, value) in operators {
                            let condition = self.condition_of(name, operator, value);
                            all = all.add_option(condition);
                        }
                    }
                    value => all = all.add_option(self.condition_of(name, "eq", value)),
                },
            }
        }
        all
    }

    fn condition_of(&mut self, field: &str, operator: &str, value: &Json) -> Option<Condition> {
        let column = self.column("filter", field)?;
        self.conditions += 1;
        if self.conditions == MAX_CONDITIONS + 1 {
            self.refuse(
                "filter",
                format!("must have at most {MAX_CONDITIONS} conditions"),
            );
        }
        if self.conditions > MAX_CONDITIONS {
            return None;
        }
        match condition::<E>(column, operator, value, self.repository.executor.backend()) {
            Ok(condition) => Some(condition),
            Err(problem) => {
                self.refuse(column.as_str(), problem);
                None
            }
        }
    }
}

fn refused<X: From<Error>>(wrong: Vec<FieldError>, condition: Condition) -> Result<Condition, X> {
    if wrong.is_empty() {
        Ok(condition)
    } else {
        Err(Error::Validation(wrong).into())
    }
}

/// Returns what a client sent as an error names it: cut, and without control characters.
fn quoted(name: &str) -> String {
    let cut: String = name
        .chars()
        .filter(|character| !character.is_control())
        .take(60)
        .collect();
    format!("`{cut}`")
}

fn is_not_true(filter: Condition, backend: DbBackend) -> SimpleExpr {
    let filter = SimpleExpr::from(filter);
    match backend {
        DbBackend::Postgres => Expr::cust_with_exprs("($1) IS NOT TRUE", [filter]),
        _ => Expr::cust_with_exprs("(?) IS NOT TRUE", [filter]),
    }
}

/// Returns the condition of one operator, or what is wrong with it.
fn condition<E: RepositoryEntity>(
    column: E::Column,
    operator: &str,
    value: &Json,
    backend: DbBackend,
) -> Result<Condition, String> {
    let expr = || Expr::col((column.entity_name(), column));
    let bind = |value: &Json| {
        let value = value_of::<E>(column, value)?;
        Ok::<_, String>(column.save_as(Expr::val(value)))
    };
    let some = |value: &Json| {
        if value.is_null() {
            return Err(format!(
                "`{operator}` needs a value; `eq` and `ne` take null"
            ));
        }
        bind(value)
    };
    let or_null = |condition: SimpleExpr| {
        let condition = Condition::any().add(condition);
        if column.def().is_null() {
            condition.add(expr().is_null())
        } else {
            condition
        }
    };
    let one = |condition: SimpleExpr| Condition::all().add(condition);
    Ok(match operator {
        "eq" if value.is_null() => one(expr().is_null()),
        "ne" if value.is_null() => one(expr().is_not_null()),
        "eq" => one(expr().eq(bind(value)?)),
        "ne" => or_null(expr().ne(bind(value)?)),
        "gt" => one(expr().gt(some(value)?)),
        "gte" => one(expr().gte(some(value)?)),
        "lt" => one(expr().lt(some(value)?)),
        "lte" => one(expr().lte(some(value)?)),
        "in" | "not_in" => {
            let Some(values) = value.as_array().filter(|values| values.len() <= MAX_VALUES) else {
                return Err(format!(
                    "`{operator}` needs a list of at most {MAX_VALUES} values"
                ));
            };
            let values: Vec<_> = values.iter().map(some).collect::<Result<_, _>>()?;
            if operator == "in" {
                one(expr().is_in(values))
            } else {
                or_null(expr().is_not_in(values))
            }
        }
        "contains" | "starts_with" | "ends_with" => one(like(
            column,
            text_of::<E>(column, operator, value)?,
            operator,
            backend,
        )),
        "is_null" => match value.as_bool().or_else(|| value.as_str()?.parse().ok()) {
            Some(true) => one(expr().is_null()),
            Some(false) => one(expr().is_not_null()),
            None => return Err("`is_null` needs true or false".to_owned()),
        },
        _ => {
            let operators = OPERATORS.join(", ");
            return Err(format!(
                "has no operator {}; there are {operators}",
                quoted(operator)
            ));
        }
    })
}

fn text_of<'v, E: RepositoryEntity>(
    column: E::Column,
    operator: &str,
    value: &'v Json,
) -> Result<&'v str, String> {
    if <E::Model as ModelTrait>::get_value_type(column) != ArrayType::String {
        return Err(format!("`{operator}` is for text"));
    }
    let text = value.as_str().filter(|text| !text.contains('\0'));
    let text = text.ok_or_else(|| format!("`{operator}` needs text"))?;
    if text.chars().count() > MAX_SEARCH {
        return Err(format!(
            "`{operator}` takes at most {MAX_SEARCH} characters"
        ));
    }
    Ok(text)
}

/// Returns the condition that a text holds another, without ASCII case.
fn like<C: ColumnTrait>(column: C, text: &str, operator: &str, backend: DbBackend) -> SimpleExpr {
    let mut pattern = String::with_capacity(text.len() + 2);
    if operator != "starts_with" {
        pattern.push('%');
    }
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character.to_ascii_lowercase());
    }
    if operator != "ends_with" {
        pattern.push('%');
    }
    let (table, name) = (column.entity_name().to_string(), column.as_str());
    // `lower` is of ASCII alone on SQLite, and on PostgreSQL by this collation.
    let lower = match backend {
        DbBackend::Postgres => format!(r#"lower("{table}"."{name}" COLLATE "C")"#),
        _ => format!(r#"lower("{table}"."{name}")"#),
    };
    Expr::cust(lower).like(LikeExpr::new(pattern).escape('\\'))
}
