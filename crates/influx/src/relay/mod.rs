//! The program `hh-relay`: it takes writes as InfluxDB 1.x does, writes them to several servers,
//! and keeps what one of them missed until it has it.
//!
//! ```text
//! settings   the file of settings, checked before anything is opened
//! listen     connections, with TLS or without: how many, and for how long
//! http       requests and answers, in the words of both versions of the interface
//! body       one body: within its bound, in its time, unpacked; all bodies: `budget`
//! udp        lines that come in by UDP
//! write      points to all servers; what is refused is found point by point
//! report     how points fared, and what a client is told of it
//! run        starts all of that, and stops it
//! ```

mod body;
mod budget;
mod convert;
mod counts;
mod http;
mod limits;
mod listen;
mod log;
mod plan;
mod report;
mod run;
mod settings;
mod shown;
mod tls;
mod udp;
mod users;
mod write;

pub use crate::causes::with_causes;
pub use convert::{ConvertError, convert};
pub use log::begin as begin_log;
pub use plan::{PlanError, plan};
pub use run::{RunError, run};
pub use settings::{
    AdminSettings, HttpSettings, LogFormat, LogSettings, Settings, SettingsError, TlsSettings,
    UdpSettings, UserSettings,
};
pub use tls::TlsError;
pub use users::NoPassword;
