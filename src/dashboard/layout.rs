//! The frame of every page, and its style.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use maud::{DOCTYPE, Markup, html};

use super::Visitor;

const STYLE: &str = include_str!("style.css");

/// The automatic refresh of a page by the browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoRefresh {
    /// Load the page again after this many seconds, because something is running.
    In(u32),
    /// Nothing.
    Never,
}

/// A page for a visitor.
pub fn page(title: &str, visitor: &Visitor, auto_refresh: AutoRefresh, content: &Markup) -> Markup {
    bare(
        title,
        auto_refresh,
        &html! {
            header.top {
                nav aria-label="Main" {
                    a.brand href="/" { "salla-reconciler" }
                    a href="/" { "Overview" }
                    a href="/dashboard/merchants" { "Merchants" }
                }
                @if let Some(key) = &visitor.form_key {
                    form method="post" action="/dashboard/sign-out" {
                        input type="hidden" name="form_key" value=(key);
                        span.who { (visitor.actor) @if !visitor.operates { " (read only)" } }
                        button.quiet type="submit" { "Sign out" }
                    }
                }
            }
            main #content { (content) }
            footer { "salla-reconciler " (env!("CARGO_PKG_VERSION")) " · times are in the time zone of the schedule, with UTC beside them" }
        },
    )
}

/// A page for anybody.
pub fn bare(title: &str, auto_refresh: AutoRefresh, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let AutoRefresh::In(seconds) = auto_refresh { meta http-equiv="refresh" content=(seconds); }
                title { (title) " · salla-reconciler" }
                link rel="stylesheet" href=(concat!("/dashboard/style.css?v=", env!("CARGO_PKG_VERSION")));
            }
            body {
                a.skip href="#content" { "To the content" }
                (body)
            }
        }
    }
}

/// An error page.
pub fn error_page(status: StatusCode, detail: &str) -> Markup {
    bare(
        status.canonical_reason().unwrap_or("Error"),
        AutoRefresh::Never,
        &html! {
            main #content .narrow {
                h1 { (status.canonical_reason().unwrap_or("Error")) }
                p { (detail) }
                p { a href="/" { "To the overview" } }
            }
        },
    )
}

/// The style of every page.
pub async fn style() -> impl IntoResponse {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"));
    // Its address carries the version.
    let keep = (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
    ([kind, keep], STYLE)
}
