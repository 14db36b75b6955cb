//! The document of the API (OpenAPI 3.1), made from the descriptions beside the handlers. Only [`on`] creates routes,
//! so every route has a description.

use axum::{Extension, Router, handler::Handler, http::header, response::IntoResponse, routing::MethodRouter};
use utoipa::{
    __dev::SchemaReferences,
    Path, ToSchema as _,
    openapi::{
        Content, Info, OpenApi, Ref, RefOr, Response,
        header::HeaderBuilder,
        path::{Operation, PathItem, Paths},
        schema::{ComponentsBuilder, ObjectBuilder, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::{
    PathItemExt as _,
    router::{OpenApiRouter, UtoipaMethodRouter},
};

use super::{
    examples,
    problem::{Members, PROBLEM_JSON},
};

const SCHEME: &str = "token";

/// The answers that any operation may give.
const ALWAYS: [(&str, &str); 2] =
    [("500", "Internal error; the log has details"), ("503", "No answer in time, or not ready; try again")];

/// Answers that every operation behind a token may give.
const GUARDED: [(&str, &str); 3] = [
    ("401", "Missing or wrong bearer token"),
    ("403", "The token lacks the scope; or no token is configured, and the request does not come from this machine"),
    ("429", "Too many requests, or too many wrong tokens, from this address"),
];

/// A route: a handler at the path and method of its `#[utoipa::path]`. The crate utoipa puts these beside the handler
/// as a type, `__path_…`. Its own macro for routes, `utoipa_axum::routes!`, does not accept generic handlers.
pub fn on<P, H, T, S>(_: P, handler: H) -> UtoipaMethodRouter<S>
where
    P: Path + SchemaReferences,
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    let (mut schemas, mut paths) = (Vec::new(), Paths::new());
    P::schemas(&mut schemas);
    let filters = P::methods().into_iter().map(|method| method.to_method_filter());
    let route = filters.fold(MethodRouter::new(), |route, filter| route.on(filter, handler.clone()));
    paths.add_path_operation(P::path(), P::methods(), P::operation());
    (schemas, paths, route)
}

/// A document without routes.
pub fn blank() -> OpenApi {
    let mut info = Info::new("salla-reconciler", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "The HTTP API of the reconciler. Errors are `application/problem+json` (RFC 9457). Times are RFC 3339."
            .to_owned(),
    );
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of `http.api_token` or `http.api_tokens`. `GET /merchants/{id}/token` needs the scope `token`, which allows \
             nothing else. The scope `read` allows every other GET, and `operate` also every change. Without a configured \
             token, a loopback listener allows `operate`.",
        ))
        .build();
    let mut problem = Vec::new();
    Members::schemas(&mut problem);
    problem.push((Members::name().into_owned(), <Members<'_> as utoipa::PartialSchema>::schema()));
    let components = ComponentsBuilder::new()
        .security_scheme(SCHEME, SecurityScheme::Http(bearer))
        .schemas_from_iter(problem)
        .build();
    let mut document = OpenApi::new(info, Paths::new());
    document.components = Some(components);
    document
}

/// Takes the routes out of a router, and adds its document to the whole.
pub fn merge_routes<S>(mut router: OpenApiRouter<S>, guarded: bool, whole: &mut OpenApi) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    complete(router.get_openapi_mut(), guarded);
    let (routes, document) = router.split_for_parts();
    whole.merge(document);
    routes
}

/// Adds the parts that every operation shares: problems where errors have no other description, and those that each may
/// end in.
fn complete(document: &mut OpenApi, guarded: bool) {
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        let id = operation.operation_id.clone().unwrap_or_default();
        let shared = ALWAYS.into_iter().chain(GUARDED.into_iter().filter(|_| guarded));
        for (status, description) in shared {
            let response = || RefOr::T(Response::new(description));
            operation.responses.responses.entry(status.to_owned()).or_insert_with(response);
        }
        for (status, response) in &mut operation.responses.responses {
            if let RefOr::T(response) = response
                && status.starts_with(['4', '5'])
                && response.content.is_empty()
            {
                let schema = Ref::from_schema_name(Members::name());
                response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(Content::new(Some(schema))));
                if status == "429" {
                    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
                    let after = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds to wait")).build();
                    response.headers.insert("Retry-After".to_owned(), RefOr::T(after));
                }
            }
        }
        for (status, response) in &mut operation.responses.responses {
            if let RefOr::T(response) = response {
                exemplify(&id, status, response);
            }
        }
        if guarded {
            operation.security = Some(vec![SecurityRequirement::new::<_, _, String>(SCHEME, [])]);
        }
    }
}

/// Shows what the answer looks like.
fn exemplify(operation: &str, status: &str, response: &mut Response) {
    for content in response.content.values_mut() {
        let RefOr::T(content) = content else {
            continue;
        };
        if let Some(RefOr::Ref(schema)) = &content.schema {
            let name = schema.ref_location.rsplit('/').next().unwrap_or_default();
            content.example = if name == Members::name() {
                examples::problem(status, &response.description)
            } else {
                examples::of(name, operation)
            };
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

/// The document as it is served and printed.
#[derive(Debug, Clone)]
pub struct Text(pub std::sync::Arc<str>);

/// Shows this document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "document", tag = "probes",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value, content_type = "application/json")))]
pub async fn show(Extension(Text(text)): Extension<Text>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string())
}
