//! The dashboard: pages about sweeps, merchants and runs, with buttons. The server renders them without scripts, and they
//! load nothing from other addresses.

mod actions;
mod format;
mod home;
mod layout;
mod merchant;
mod merchants;
mod plot;
mod run;
mod sign_in;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use tokio::time::timeout;

use self::format::Clock;
use crate::{
    http::{
        Api, Onboarding,
        access::{self, AccessDenied, Granted},
        limits,
        problem::{self, Problem},
        session::{self, Cookie},
        tokens::Scope,
    },
    reconcile::ports::{Actor, CredentialError, DatabaseError, MerchantRegistry, Overview, RunStore},
};

/// What the pages need.
#[derive(Debug)]
pub struct DashboardState<L, R> {
    /// What the API's handlers need.
    pub api: Arc<Api<L>>,
    /// What the register's handlers need.
    pub onboarding: Arc<Onboarding<R>>,
    /// The time zone of the schedule, in which the pages show times.
    pub zone: Tz,
}

impl<L, R> DashboardState<L, R> {
    fn clock(&self, now: DateTime<Utc>) -> Clock {
        Clock { now, zone: self.zone }
    }
}

impl<L, R> Clone for DashboardState<L, R> {
    fn clone(&self) -> Self {
        Self { api: Arc::clone(&self.api), onboarding: Arc::clone(&self.onboarding), zone: self.zone }
    }
}

/// Who looks at a page.
#[derive(Debug, Clone)]
struct Visitor {
    actor: Actor,
    /// Whether the visitor may also change data.
    operates: bool,
    /// In the forms of their pages; `None`: they come without a session, and no other site can make them come so.
    form_key: Option<String>,
}

/// A page, or an error page.
type Page = Result<Response, PageError>;

/// People wait no longer.
const PAGE_WITHIN: Duration = Duration::from_secs(10);

const NO_ANSWER: &str =
    "the database does not answer. Runs continue when it answers. /readyz has the reason. Load the page again later";

/// Where a sign-in begins.
const SIGN_IN: &str = "/dashboard/sign-in";

/// The pages, by address.
pub fn router<L: RunStore + Overview, R: MerchantRegistry, S: Clone + Send + Sync + 'static>(
    dashboard: DashboardState<L, R>,
) -> Router<S> {
    let guarded = Router::new()
        .route("/", get(home::show::<L, R>))
        .route("/dashboard/merchants", get(merchants::show::<L, R>))
        .route("/dashboard/merchants/{id}", get(merchant::show::<L, R>))
        .route("/dashboard/merchants/{id}/{action}", post(actions::of_merchant::<L, R>))
        .route("/dashboard/runs/{id}", get(run::show::<L, R>))
        .route("/dashboard/runs/{id}/cancel", post(actions::cancel::<L, R>))
        .route("/dashboard/all/{action}", post(actions::of_all::<L, R>))
        .route_layer(middleware::from_fn_with_state(dashboard.clone(), require::<L, R>));
    Router::new()
        .route(SIGN_IN, get(sign_in::show::<L, R>))
        .route("/dashboard/sign-out", post(sign_in::out::<L, R>))
        .route("/dashboard/style.css", get(layout::style))
        .merge(guarded)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&dashboard.api), limits::by_address::<L>))
        // Its token is compared before anything is counted.
        .route(SIGN_IN, post(sign_in::submit::<L, R>))
        .layer(middleware::map_response(headers))
        .with_state(dashboard)
}

/// A page shows what this program serves, and sends its forms there.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// Errors are pages as well.
async fn headers(mut response: Response) -> Response {
    if response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
        response.extensions_mut().insert(problem::Shown);
    }
    response.headers_mut().entry(header::CONTENT_SECURITY_POLICY).or_insert(POLICY);
    // The target of a form needs the origin: see `access::is_same_site`.
    response.headers_mut().entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("same-origin"));
    response
}

/// Lets a visitor in, with their [`Visitor`], or shows them the door.
async fn require<L: RunStore + Overview, R: MerchantRegistry>(
    State(dashboard): State<DashboardState<L, R>>,
    mut request: Request,
    next: Next,
) -> Response {
    let address = limits::caller_address(&request);
    let access = &dashboard.api.access;
    let visitor = match access.check(request.method(), request.headers(), address) {
        Ok(Granted { actor, scope }) => Ok(Visitor { actor, operates: scope == Scope::Operate, form_key: None }),
        Err(AccessDenied::NoToken) => {
            let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
            session_of(&dashboard.api, &method, &uri, &headers, address).await
        }
        Err(AccessDenied::Problem(problem)) => Err(problem.into()),
    };
    match visitor {
        Ok(visitor) => {
            request.extensions_mut().insert(visitor);
            match timeout(PAGE_WITHIN, next.run(request)).await {
                Ok(page) => page,
                Err(_) => PageError::new(StatusCode::SERVICE_UNAVAILABLE, NO_ANSWER).into_response(),
            }
        }
        Err(oops) => oops.into_response(),
    }
}

async fn session_of<L: Overview>(
    api: &Api<L>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    address: IpAddr,
) -> Result<Visitor, PageError> {
    let sign_in = || PageError::SignIn(if method == Method::GET { uri.clone() } else { Uri::default() });
    let tokens = api.access.tokens();
    let session = match tokens.map_or(Cookie::None, |tokens| session::of_request(tokens, headers, Utc::now())) {
        Cookie::Valid(session) => session,
        Cookie::Forged => {
            api.access.failed(address)?;
            return Err(sign_in());
        }
        Cookie::None | Cookie::Expired => return Err(sign_in()),
    };
    match timeout(PAGE_WITHIN, api.store.session_has_ended(&session.id)).await {
        Ok(has_ended) => {
            if has_ended? {
                return Err(sign_in());
            }
        }
        Err(_) => return Err(PageError::new(StatusCode::SERVICE_UNAVAILABLE, NO_ANSWER)),
    }
    if !session.token.scope.allows(Scope::Read) {
        return Err(sign_in());
    }
    let operates = session.token.scope == Scope::Operate;
    if !method.is_safe() {
        if !access::is_same_site(headers) {
            return Err(PageError::new(StatusCode::FORBIDDEN, "the form was sent from a page of another site"));
        }
        if !operates {
            let detail = format!(
                "the token {:?} may look, and change nothing: sign in with one of scope `operate`",
                session.token.name
            );
            return Err(PageError::new(StatusCode::FORBIDDEN, detail));
        }
    }
    Ok(Visitor { actor: Actor::Token(session.token.name.clone()), operates, form_key: Some(session.form_key) })
}

impl Visitor {
    /// Whether a form is one of this visitor's own pages.
    fn sent(&self, sent: &actions::Sent) -> Result<(), PageError> {
        match &self.form_key {
            Some(right) if !sent.is_of(right) => Err(PageError::new(
                StatusCode::FORBIDDEN,
                "the form is of another session: go back, and load the page again",
            )),
            _ => Ok(()),
        }
    }
}

/// An error page.
#[derive(Debug)]
enum PageError {
    /// The visitor is not signed in. After signing in, the browser goes there.
    SignIn(Uri),
    /// In words.
    ErrorPage { status: StatusCode, detail: String },
}

impl PageError {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::ErrorPage { status, detail: detail.into() }
    }

    fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

impl From<Problem> for PageError {
    fn from(problem: Problem) -> Self {
        Self::ErrorPage { status: problem.status(), detail: problem.detail().to_owned() }
    }
}

impl From<CredentialError> for PageError {
    fn from(error: CredentialError) -> Self {
        Problem::from(error).into()
    }
}

impl From<DatabaseError> for PageError {
    fn from(error: DatabaseError) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn(then) => Redirect::to(&sign_in::address(&then)).into_response(),
            Self::ErrorPage { status, detail } => (status, layout::error_page(status, &detail)).into_response(),
        }
    }
}

/// The visitor, as the handlers get them.
type VisitorExtension = Extension<Visitor>;
