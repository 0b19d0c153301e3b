//! The reference pages of the documentation, made from the tables that the code itself reads.

use crate::config::Page;
use crate::refs::schemes;
use crate::render::parameters;

/// The text of a page.
pub(super) fn page(page: Page) -> String {
    match page {
        Page::Parameters => parameters::markdown(),
        Page::References => schemes::markdown(),
    }
}
