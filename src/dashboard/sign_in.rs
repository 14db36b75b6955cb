//! Signing in with a token of the API, and out.

use axum::{
    Form,
    extract::{Query, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
};
use chrono::Utc;
use maud::{Markup, html};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::form_urlencoded;

use super::{
    DashboardState, Page, PageError, SIGN_IN,
    actions::Sent,
    layout::{self, AutoRefresh},
};
use crate::{
    http::{
        access, limits,
        session::{self, Cookie},
        tokens::Scope,
    },
    reconcile::ports::{MerchantRegistry, Overview, RunStore},
};

/// What leads to the form.
#[derive(Debug, Deserialize)]
pub struct SignInQuery {
    #[serde(default)]
    then: String,
}

/// What the form sends.
#[derive(Debug, Deserialize)]
pub struct SignIn {
    token: SecretString,
    #[serde(default)]
    then: String,
}

/// The form's address, for one who wanted to go to `then`.
pub fn address(then: &Uri) -> String {
    let there = then.path_and_query().map_or("/", |there| there.as_str());
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("then", there).finish();
    if there == "/" { SIGN_IN.to_owned() } else { format!("{SIGN_IN}?{query}") }
}

/// The form.
pub async fn show<L: RunStore, R: MerchantRegistry>(
    State(dashboard): State<DashboardState<L, R>>,
    Query(query): Query<SignInQuery>,
) -> Response {
    if dashboard.api.access.tokens().is_none() {
        return Redirect::to("/").into_response();
    }
    form(&query.then, None).into_response()
}

/// Begins a session for a caller with a valid token.
pub async fn submit<L: RunStore, R: MerchantRegistry>(
    State(dashboard): State<DashboardState<L, R>>,
    request: Request,
) -> Page {
    let address = limits::caller_address(&request);
    let headers = request.headers().clone();
    if !access::is_same_site(&headers) {
        return Err(PageError::new(StatusCode::FORBIDDEN, "the form was sent from a page of another site"));
    }
    let Ok(Form(sign_in)) = axum::RequestExt::extract::<Form<SignIn>, _>(request).await else {
        return Err(PageError::new(StatusCode::BAD_REQUEST, "the form cannot be read"));
    };
    let token = dashboard.api.access.find(sign_in.token.expose_secret().trim().as_bytes(), address)?;
    let Some(token) = token.filter(|token| token.scope.allows(Scope::Read)) else {
        return Ok((
            StatusCode::UNAUTHORIZED,
            form(
                &sign_in.then,
                Some("This token does not open the dashboard. Use one with the scope read or operate."),
            ),
        )
            .into_response());
    };
    tracing::info!(target: "audit", actor = token.name, "signed in to the dashboard");
    let cookie = session::begin(token, Utc::now(), &headers);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(local(&sign_in.then))).into_response())
}

/// Ends the session, in every process.
pub async fn out<L: RunStore + Overview, R: MerchantRegistry>(
    State(dashboard): State<DashboardState<L, R>>,
    headers: HeaderMap,
    Form(sent): Form<Sent>,
) -> Page {
    if !access::is_same_site(&headers) {
        return Err(PageError::new(StatusCode::FORBIDDEN, "the form was sent from a page of another site"));
    }
    if let Some(tokens) = dashboard.api.access.tokens()
        && let Cookie::Valid(session) = session::of_request(tokens, &headers, Utc::now())
    {
        if !sent.is_of(&session.form_key) {
            return Err(PageError::new(
                StatusCode::FORBIDDEN,
                "the form belongs to another session: load the page again",
            ));
        }
        dashboard.api.store.end_session(&session.id, session.until).await?;
    }
    Ok(([(header::SET_COOKIE, session::end(&headers))], Redirect::to(SIGN_IN)).into_response())
}

/// A local path; `/` for any other address.
fn local(then: &str) -> &str {
    let is_plain = then.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let ours = then.starts_with('/') && !then.starts_with("//") && is_plain;
    if ours && !then.starts_with(SIGN_IN) { then } else { "/" }
}

fn form(then: &str, problem: Option<&str>) -> Markup {
    layout::bare(
        "Sign in",
        AutoRefresh::Never,
        &html! {
            main #content .narrow {
                h1 { "salla-reconciler" }
                section {
                    h2 { "Sign in" }
                    @if let Some(problem) = problem { p.note.bad role="alert" { (problem) } }
                    form method="post" action=(SIGN_IN) {
                        input type="hidden" name="then" value=(local(then));
                        label for="token" { "API token" }
                        p { input #token type="password" name="token" required autocomplete="current-password" autofocus; }
                        button type="submit" { "Sign in" }
                    }
                    p.soft { "From " code { "http.api_token" } " or " code { "http.api_tokens" } ". The scope "
                        code { "read" } " shows the pages, " code { "operate" } " also enables the buttons." }
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_on_this_site() {
        for then in
            ["//evil.example", "https://evil.example", "/\\evil.example", "", "javascript:1", "/a\r\nb", SIGN_IN]
        {
            assert_eq!(local(then), "/", "{then:?}");
        }
        for then in ["/", "/dashboard/merchants/1001?x=1"] {
            assert_eq!(local(then), then);
        }
    }

    #[test]
    fn the_target_of_a_sign_in_is_kept() {
        assert_eq!(
            address(&"/dashboard/merchants?q=a&b=c".parse().unwrap()),
            "/dashboard/sign-in?then=%2Fdashboard%2Fmerchants%3Fq%3Da%26b%3Dc"
        );
        assert_eq!(address(&Uri::default()), SIGN_IN);
    }
}
