//! A workflow with what belongs to it, in one statement.

use aura_orm::{CachedSql, RowDecoder, RowReader, TypedQuery, TypedStatement};
use entity::{RepositoryEntity, WorkflowId, plugins, users, workflow_plugins, workflows};
use sea_orm::sea_query::{Expr, UnionType};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, Iterable, JoinType, QueryFilter, QuerySelect, QueryTrait,
    RelationTrait, Select,
};

use crate::repositories::plugins::Plugin;
use crate::repositories::users::User;
use crate::repositories::workflows::Workflow;

/// A row of [`details`].
pub(super) enum Detail {
    /// The workflow with its owner.
    Workflow(Box<(Workflow, User)>),
    /// One of its plugins.
    Plugin(Plugin),
}

impl RowDecoder for Detail {
    type Row = Self;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
        if cells.next_value()? {
            let workflow = cells.next_model::<workflows::Entity>()?;
            let owner = cells.next_model::<users::Entity>()?;
            return Ok(Self::Workflow(Box::new((workflow, owner))));
        }
        cells.skip(owned().count());
        Ok(Self::Plugin(cells.next_model::<plugins::Entity>()?))
    }
}

/// The columns of a workflow and its owner.
fn owned() -> impl Iterator<Item = Expr> {
    columns::<workflows::Column>().chain(columns::<users::Column>())
}

fn columns<C: ColumnTrait + Iterable>() -> impl Iterator<Item = Expr> {
    C::iter().map(|column| column.select_as(column.into_expr()))
}

/// The workflow, unless it is deleted, and its plugins, those that are not. (A
/// join would return the workflow's documents beside each plugin.)
pub(super) fn details(id: WorkflowId) -> impl TypedStatement<Decoder = Detail> {
    static DETAILS: CachedSql = CachedSql::new();
    DETAILS.with(vec![id.into(), id.into()], move || {
        let plugin = columns::<plugins::Column>;
        let null = |_| Expr::cust("NULL");
        let workflow = workflows::Entity::not_deleted()
            .join(JoinType::InnerJoin, workflows::Relation::Users.def())
            .filter(workflows::COLUMN.id.eq(id))
            .filter(users::COLUMN.deleted_at.is_null());
        let attached = plugins::Entity::not_deleted()
            .join(
                JoinType::InnerJoin,
                workflow_plugins::Relation::Plugins.def().rev(),
            )
            .filter(workflow_plugins::COLUMN.workflow_id.eq(id));
        let workflow = selecting(workflow, "TRUE", owned().chain(plugin().map(null)));
        let attached = selecting(attached, "FALSE", owned().map(null).chain(plugin()));
        let mut both = workflow.into_query();
        both.union(UnionType::All, attached.into_query());
        Ok(TypedQuery::of(both))
    })
}

fn selecting<E: EntityTrait>(
    select: Select<E>,
    kind: &'static str,
    columns: impl Iterator<Item = Expr>,
) -> Select<E> {
    let select = select.select_only().expr(Expr::cust(kind));
    columns.fold(select, QuerySelect::expr)
}
