//! Lists in parts, by cursor or number.
//!
//! ```
//! # use aura_db::{PageRequest, UserFilter, UserSort};
//! # async fn example(db: aura_db::Database) -> Result<(), aura_db::Error> {
//! let newest = UserFilter::new().sort(UserSort::CreatedAt).descending();
//! let mut page = PageRequest::first(50);
//! loop {
//!     let users = db.users().list(newest.clone(), page).await?;
//!     println!("{} users", users.items.len());
//!     // Rows that are inserted meanwhile are neither skipped nor returned twice.
//!     let Some(next) = users.next else { break };
//!     page = PageRequest::after(next, 50);
//! }
//! # Ok(()) }
//! ```
//!
//! A page whose rows would have more than [`MAX_PAGE_BYTES`] ends early ([`Page::cut`]), and
//! the loop above goes on behind it. Rows that this build can't read are in
//! [`Page::unreadable`] with their keys and columns, and the list goes on behind them.

pub use aura_orm::page::{
    Cursor, MAX_PAGE, MAX_PAGE_BYTES, Page, PageRequest, Sort, UnreadableRow,
};
