//! Salla's Merchant API. Its formats, its irregularities and its limits stay inside this module. The rest of the
//! program sees only the terms of the application.

mod auth;
mod config;
mod http;
mod listing;
mod outbound;
mod probe;
mod request_span;
mod resources;
mod wire;

/// For `fuzz/` only: how the client reads an answer.
#[doc(hidden)]
pub use wire::envelope::Envelope;
pub use {
    auth::{app_events::read_event, user_info::UserInfo},
    config::Config,
    http::{circuit_breaker::OnOpenCircuit, client::SallaClient},
    outbound::plain_client,
    probe::{Finding, ProbeReport, ProbeSettings, Recording},
    resources::{
        api_resource::{ApiResource, ReadOptions},
        privacy::{Config as PrivacyConfig, PersonalFields, Privacy},
    },
};
