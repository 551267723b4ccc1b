//! Pages of lists.

/// The most entries of one page of a list.
pub(crate) const PAGE_MAX: u32 = 1000;

/// Where a page of a list begins, newest first: `before` is the last id of the page before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub before: Option<i64>,
    /// The most entries to return, up to 1,000.
    pub limit: u32,
}

impl Page {
    pub(crate) fn bounds(self) -> [i64; 2] {
        let limit = i64::from(self.limit.min(PAGE_MAX));
        [self.before.unwrap_or(i64::MAX), limit]
    }
}
