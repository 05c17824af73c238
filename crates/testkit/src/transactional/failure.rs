//! What a child that works in transactions fails of.

use std::error::Error;

pub type Failure = Box<dyn Error + Send + Sync>;
