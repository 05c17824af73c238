//! Points as operators see them.

use bytes::Bytes;
use hinted_handoff::{Payload, PayloadError};
use serde_json::{Value, json};

use crate::LinePoints;

/// Points of a hint as JSON.
pub fn shown(format: u16, bytes: Bytes) -> Result<Value, PayloadError> {
    let points = LinePoints::decode(format, bytes)?;
    let target = points.target();
    Ok(json!({
        "database": target.database,
        "retention_policy": target.retention_policy,
        "precision": target.precision.as_str(),
        "points": points.points(),
        "lines": String::from_utf8_lossy(points.lines()),
    }))
}
