//! What everything that speaks to AWS shares: one HTTP client, and one configuration per connection.

/// The AWS configurations of this process.
#[derive(Debug, Default)]
pub struct Aws {}
