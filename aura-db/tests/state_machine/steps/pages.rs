//! Parts of lists.

use aura_db::Cursor;

use crate::draw::Draw;

/// Which part of a list, or all of it by parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pages {
    pub(crate) size: u64,
    pub(crate) at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    First,
    /// Each page from where the one before ended.
    All,
    Number(u64),
    /// After a cursor that no list gave.
    Bad(usize),
}

impl Pages {
    /// Everything.
    pub(crate) const ALL: Self = Self {
        size: 1_000,
        at: At::All,
    };

    pub(crate) fn draw(draw: &mut Draw<'_>) -> Self {
        let size = draw.pick(&[1_000, 1, 2, 3, 4, 5, 7, 10, 1, 2, 3, 4, 5, 7, 0, 1_001]);
        let at = match draw.byte() % 16 {
            0..4 => At::First,
            4..11 => At::All,
            15 => At::Bad(draw.byte()),
            14 => At::Number(draw.pick(&[0, u64::MAX, i64::MAX as u64, 1 << 40])),
            byte => At::Number(byte as u64 - 10),
        };
        Self { size, at }
    }
}

pub(crate) fn bad_cursor(which: usize) -> Cursor {
    // The second is of a list of nothing that there is.
    let all = [
        "",
        "WyJub2JvZHkraWQiLCIiLDFd",
        "'; DROP TABLE users; --",
        "bnVsbA",
    ];
    Cursor::from(all[which % all.len()].to_owned())
}
