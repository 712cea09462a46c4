//! An application's tables beside ours, with a history of their own.

mod beside;
mod data;
mod repair;
mod support;
