//! The pages: their content, their access control, and their look in a real browser.

use std::{fs, path::Path};

use chrono::{TimeDelta, Utc};
use fantoccini::{Locator, key::Key};
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, LOCATION, SET_COOKIE},
};
use salla_reconciler::simulator::Fault;
use serde_json::json;

use crate::support::{
    Engine, Site,
    browser::{Browser, Theme},
    daemon::Daemon,
    site::shop,
    until,
};

on_every_database!(
    pages_show_a_sweep,
    the_buttons,
    signing_in,
    signing_out,
    a_forged_session_is_a_wrong_token,
    sessions_need_their_form_key_and_scope,
);

const OPERATOR: &str = "operator-canary-0123";
const READER: &str = "reader-canary-0123";

/// Two stores, of which one fails, in a sweep that was missed and made up for. Names are whatever people call a shop.
async fn a_site_after_a_night(engine: Engine) -> (Site, Daemon) {
    let mut site = Site::new(engine, [shop(1001, 5, 3), shop(1002, 0, 1)]).await;
    site.database
        .execute("UPDATE merchants SET name = 'متجر <b>الورد</b>\u{202e}\u{2066}' WHERE merchant_id = 1001", [])
        .await;
    // The store was reconciled before, so the sweep finds drift.
    let watermark = [(Utc::now() - TimeDelta::days(1)).into()];
    site.database
        .execute("INSERT INTO watermarks (merchant_id, resource, watermark) VALUES (1001, 'orders', $1)", watermark)
        .await;
    // In the first hour of a day, the slot that was missed is yesterday's.
    let missed = Utc::now() - TimeDelta::hours(1);
    let hour = missed.format("%H").to_string();
    site.set("SCHEDULE__CRON", &format!("0 0 {hour} * * *"));
    site.set("SCHEDULE__TIMEZONE", "UTC");
    let pattern = format!("0 0 {hour} * * * UTC");
    for days in 2..30_i64 {
        let slot =
            (missed - TimeDelta::days(days)).date_naive().and_hms_opt(hour.parse().unwrap(), 0, 0).unwrap().and_utc();
        let backfilled = json!({"created": if days == 29 { 35 } else { 0 }, "updated": 0});
        let counted = json!({"backfilled": backfilled, "fetched": 90, "created": 40 + days * 7 % 50, "updated": days * 11 % 30, "unchanged": 5, "skipped": 0, "failed": 0});
        let tally = json!([["succeeded", 2, counted]]).to_string();
        let values = [slot.into(), pattern.clone().into(), tally.into(), (slot + TimeDelta::seconds(60 + days)).into()];
        let sql = "INSERT INTO sweeps (scheduled_for, cron, outcome, run_count, summary, started_at, ended_at) VALUES ($1, $2, 'schedule', 2, $3, $1, $4)";
        site.database.execute(sql, values).await;
    }
    site.salla.world().script(1002, [Fault::status(403)]);
    let daemon = site.serve().await;
    daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
    daemon.await_run("merchant_id=1002", |run| run["status"] == "failed").await;
    daemon.await_line(|line| line["message"] == "sweep ended").await;
    (site, daemon)
}

async fn page(daemon: &Daemon, path: &str) -> String {
    let (status, headers, body) = daemon.answer(daemon.request(Method::GET, path)).await;
    assert_eq!(status, 200, "{path}: {body}");
    assert!(headers["content-type"].to_str().unwrap().starts_with("text/html"), "{path}: {headers:?}");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let text = body.as_str().unwrap().to_owned();
    assert!(text.starts_with("<!DOCTYPE html>") && !text.contains("<script") && !text.contains("<b>"), "{text}");
    text
}

#[track_caller]
fn shows(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "no {text:?} in\n{page}");
    }
}

async fn pages_show_a_sweep(engine: Engine) {
    let (_site, daemon) = a_site_after_a_night(engine).await;
    let night = page(&daemon, "/").await;
    shows(
        &night,
        &[
            "1 run failed in the last sweep",
            "<strong>2 of 2</strong> done",
            "catch_up",
            "Merchants needing attention",
            "salla_request_rejected",
            "href=\"/dashboard/merchants/1002\"",
            "Last 30 sweeps",
            "<svg class=\"plot\"",
        ],
    );
    let hands =
        night.split("Merchants needing attention").nth(1).and_then(|rest| rest.split("Last 30 sweeps").next()).unwrap();
    assert!(!hands.contains("href=\"/dashboard/merchants/1001\""), "a merchant without a problem is listed: {hands}");
    shows(&night, &["Latest runs", "href=\"/dashboard/merchants/1001\""]);

    let stores = page(&daemon, "/dashboard/merchants").await;
    shows(&stores, &["<bdi dir=\"auto\">متجر &lt;b&gt;الورد&lt;/b&gt;</bdi>", "/dashboard/merchants/1002"]);
    shows(&page(&daemon, "/dashboard/merchants?state=paused").await, &["None."]);
    let store = page(&daemon, "/dashboard/merchants/1001").await;
    shows(&store, &["every sweep covers it", "watermark", "succeeded", "order.created", "tokens"]);
    let (_, run) = daemon.get("/runs?merchant_id=1001").await;
    let id = run["runs"][0]["run_id"].as_str().unwrap();
    let run = page(&daemon, &format!("/dashboard/runs/{id}")).await;
    shows(&run, &["every change in the window was read", "missing", "Window"]);
    let (_, failed) = daemon.get("/runs?merchant_id=1002").await;
    let id = failed["runs"][0]["run_id"].as_str().unwrap();
    shows(
        &page(&daemon, &format!("/dashboard/runs/{id}")).await,
        &["salla_request_rejected", "Rerun", "the watermark did not move"],
    );

    // A request for a wrong thing is also answered with a page.
    for (path, status) in [
        ("/dashboard/merchants/77", 404),
        ("/dashboard/runs/00000000-0000-7000-8000-000000000000", 404),
        ("/dashboard/merchants?id=abc", 400),
        ("/dashboard/merchants?state=odd", 400),
    ] {
        let (answer, _, body) = daemon.answer(daemon.request(Method::GET, path)).await;
        assert_eq!(answer, status, "{path}");
        assert!(body.as_str().unwrap().contains("<h1>"), "{path}: {body}");
    }
    for path in [
        "/dashboard/merchants/abc",
        "/dashboard/runs/abc",
        "/dashboard/runs/1?skip=-1",
        "/dashboard/merchants?after=x",
        "/dashboard/none",
    ] {
        let status = daemon.get(path).await.0;
        assert!(status.is_client_error(), "{path}: {status}");
    }
    for path in ["/", "/dashboard/merchants", "/dashboard/merchants/1001"] {
        let page = page(&daemon, path).await;
        assert!(!page.contains(['\u{202e}', '\u{2066}']), "{path} shows characters that turn the text around");
    }
}

/// They do what the API does, and sign with the same name.
async fn the_buttons(engine: Engine) {
    let (site, daemon) = a_site_after_a_night(engine).await;
    let press = |path: &str| {
        let request = daemon.request(Method::POST, path).header("origin", &daemon.url);
        daemon.answer(request.header("content-type", "application/x-www-form-urlencoded"))
    };
    let (status, _, body) = press("/dashboard/merchants/1002/rerun").await;
    assert_eq!(status, 200, "{body}");
    daemon.await_run("merchant_id=1002", |run| run["status"] == "succeeded").await;
    assert_eq!(press("/dashboard/merchants/1001/pause").await.0, 200);
    shows(&page(&daemon, "/dashboard/merchants/1001").await, &["chip paused", "Resume"]);
    assert_eq!(press("/dashboard/merchants/1001/resume").await.0, 200);
    assert_eq!(press("/dashboard/all/pause").await.0, 200);
    shows(&page(&daemon, "/").await, &["All merchants are paused", "Resume all merchants"]);
    assert_eq!(press("/dashboard/all/resume").await.0, 200);
    assert_eq!(press("/dashboard/merchants/1001/explode").await.0, 404);
    assert_eq!(press("/dashboard/merchants/77/rerun").await.0, 404);
    assert_eq!(press("/dashboard/runs/00000000-0000-7000-8000-000000000000/cancel").await.0, 404);
    let (_, audit) = daemon.get("/audit").await;
    let actions: Vec<_> =
        audit["entries"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    for action in ["run.trigger", "merchant.pause", "merchant.resume"] {
        assert!(actions.contains(&action), "{action} in {actions:?}");
    }
    site.search_tables();
}

/// A daemon that wants a token, and a browser without one.
struct Door {
    site: Site,
    daemon: Daemon,
    browser: reqwest::Client,
}

type Answer = (StatusCode, HeaderMap, String);

impl Door {
    async fn new(engine: Engine) -> Self {
        let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
        site.set("HTTP__API_TOKENS", &format!("night:operate:{OPERATOR},desk:read:{READER}"));
        let daemon = site.serve().await;
        let browser =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { site, daemon, browser }
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        let request = self.browser.get(format!("{}{path}", self.daemon.url)).header("cookie", cookie);
        Self::answer(request.send().await.unwrap()).await
    }

    /// Sends a form as a page of `origin` does.
    async fn post(&self, path: &str, (cookie, origin): (&str, &str), form: &[(&str, &str)]) -> Answer {
        let request = self.browser.post(format!("{}{path}", self.daemon.url)).header("cookie", cookie);
        Self::answer(request.header("origin", origin).form(form).send().await.unwrap()).await
    }

    async fn answer(answer: reqwest::Response) -> Answer {
        (answer.status(), answer.headers().clone(), answer.text().await.unwrap())
    }

    async fn sign_in(&self, token: &str, then: &str) -> Answer {
        self.post("/dashboard/sign-in", ("", &self.daemon.url), &[("token", token), ("then", then)]).await
    }

    /// The cookie of a session, and the key of its forms.
    async fn session(&self, token: &str) -> (String, String) {
        let (_, headers, _) = self.sign_in(token, "/").await;
        let cookie = headers[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let (status, _, store) = self.get("/dashboard/merchants/1001", &cookie).await;
        assert_eq!(status, 200, "{store}");
        let key = store.split("name=\"form_key\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        (cookie, key)
    }
}

fn leads_to(headers: &HeaderMap) -> &str {
    headers[LOCATION].to_str().unwrap()
}

/// Without a session there is nothing to see, and a token makes one.
async fn signing_in(engine: Engine) {
    let door = Door::new(engine).await;
    for path in ["/", "/dashboard/merchants", "/dashboard/merchants/1001"] {
        let (status, headers, _) = door.get(path, "").await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{path}");
        assert!(leads_to(&headers).starts_with("/dashboard/sign-in"), "{headers:?}");
    }
    let (status, headers, _) = door.get("/dashboard/style.css", "").await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, "text/css; charset=utf-8"));

    let (status, headers, body) = door.sign_in("reader-canary-9999", "/").await;
    assert_eq!(status, 401, "{body}");
    assert!(body.contains("This token does not open the dashboard") && !body.contains("9999"), "{body}");
    assert!(headers.get(SET_COOKIE).is_none(), "{headers:?}");
    let (status, headers, _) = door.sign_in(OPERATOR, "/dashboard/merchants/1001").await;
    assert_eq!((status, leads_to(&headers)), (StatusCode::SEE_OTHER, "/dashboard/merchants/1001"));
    let set = headers[SET_COOKIE].to_str().unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax") && !set.contains(OPERATOR), "{set}");
    assert_eq!(leads_to(&door.sign_in(OPERATOR, "https://evil.example/").await.1), "/");
    let form = [("token", OPERATOR)];
    assert_eq!(door.post("/dashboard/sign-in", ("", "https://evil.example"), &form).await.0, 403);

    let (status, headers, _) = door.post("/dashboard/sign-out", ("", &door.daemon.url), &[]).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(headers[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"), "{headers:?}");
    // Guessing is slowed down as it is everywhere.
    let mut slowed = 0;
    for _ in 0..12 {
        slowed += u32::from(door.sign_in("reader-canary-9999", "/").await.0 == 429);
    }
    assert!(slowed > 0);
}

/// It ends the session in every process, and only this site may do it.
async fn signing_out(engine: Engine) {
    let door = Door::new(engine).await;
    let (ours, second) = (door.daemon.url.clone(), door.site.serve().await);
    let (cookie, key) = door.session(OPERATOR).await;
    let (other, _) = door.session(OPERATOR).await;
    let at_second = async |cookie: &str| {
        let request = door.browser.get(format!("{}/dashboard/merchants", second.url)).header("cookie", cookie);
        Door::answer(request.send().await.unwrap()).await.0
    };
    assert_eq!(at_second(&cookie).await, 200, "a session is good in every process");
    let out = "/dashboard/sign-out";
    for (origin, form) in [
        ("https://evil.example", vec![("form_key", key.as_str())]),
        ("null", vec![("form_key", key.as_str())]),
        (ours.as_str(), vec![]),
        (ours.as_str(), vec![("form_key", "0123")]),
    ] {
        assert_eq!(door.post(out, (&cookie, origin), &form).await.0, 403, "{origin} {form:?}");
    }
    // A browser of today names the site even where it names no origin.
    let request = door.browser.post(format!("{ours}{out}")).header("cookie", &cookie);
    let request = request.header("sec-fetch-site", "cross-site").form(&[("form_key", key.as_str())]);
    assert_eq!(request.send().await.unwrap().status(), 403);
    assert_eq!(door.get("/dashboard/merchants", &cookie).await.0, 200, "it goes on");

    let (status, headers, _) = door.post(out, (&cookie, &ours), &[("form_key", &key)]).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(headers[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"), "{headers:?}");
    assert_eq!(door.get("/dashboard/merchants", &cookie).await.0, StatusCode::SEE_OTHER);
    until("the second process has heard of it", async || at_second(&cookie).await == StatusCode::SEE_OTHER).await;
    assert_eq!(door.get("/dashboard/merchants", &other).await.0, 200, "another session goes on");
    assert_eq!(at_second(&other).await, 200);

    // Where a browser is led to afterwards is a page of this site.
    for (then, leads) in
        [("/\u{7f}", "/"), ("/\n", "/"), ("//evil.example/", "/"), ("/dashboard/merchants", "/dashboard/merchants")]
    {
        let (status, headers, _) = door.sign_in(OPERATOR, then).await;
        assert_eq!((status, leads_to(&headers)), (StatusCode::SEE_OTHER, leads), "{then:?}");
        let query = then.replace('\u{7f}', "%7f").replace('\n', "%0a");
        assert_eq!(door.get(&format!("/dashboard/sign-in?then={query}"), "").await.0, 200, "{then:?}");
    }
    for (proto, secure) in [("https,http", true), ("https", true), ("http", false), ("http, https", false)] {
        let request = door.browser.post(format!("{ours}/dashboard/sign-in")).header("origin", &ours);
        let request = request.header("x-forwarded-proto", proto).form(&[("token", OPERATOR)]);
        let (_, headers, body) = Door::answer(request.send().await.unwrap()).await;
        let set = headers.get(SET_COOKIE).unwrap_or_else(|| panic!("{proto}: {body}")).to_str().unwrap();
        assert_eq!(set.contains("Secure"), secure, "{proto}: {set}");
    }
}

async fn a_forged_session_is_a_wrong_token(engine: Engine) {
    let door = Door::new(engine).await;
    let (cookie, _) = door.session(OPERATOR).await;
    let mut refused = 0;
    for number in 0..40 {
        let forged = format!("{cookie}{number:02}");
        let status = door.get("/dashboard/merchants", &forged).await.0;
        assert!(status == StatusCode::SEE_OTHER || status == 429, "{status}");
        refused += u32::from(status == 429);
        assert_eq!(door.get("/dashboard/merchants", &cookie).await.0, 200, "the right one passes meanwhile");
    }
    assert!(refused > 10, "{refused} of 40 were refused");
    assert_eq!(door.sign_in(OPERATOR, "/").await.0, StatusCode::SEE_OTHER);
}

/// It opens what its token opens, to its own pages only.
async fn sessions_need_their_form_key_and_scope(engine: Engine) {
    let door = Door::new(engine).await;
    let ours = door.daemon.url.as_str();
    let (cookie, key) = door.session(OPERATOR).await;
    let rerun = "/dashboard/merchants/1001/rerun";
    for (origin, form) in
        [("https://evil.example", vec![("form_key", key.as_str())]), (ours, vec![]), (ours, vec![("form_key", "0123")])]
    {
        assert_eq!(door.post(rerun, (&cookie, origin), &form).await.0, 403, "{origin} {form:?}");
    }
    assert_eq!(door.site.database.number("SELECT count(*) FROM runs").await, 0);
    let (status, headers, _) = door.post(rerun, (&cookie, ours), &[("form_key", &key)]).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(leads_to(&headers).starts_with("/dashboard/runs/"), "{headers:?}");
    assert_eq!(door.site.database.text("SELECT actor FROM audit WHERE action = 'run.trigger'").await, "token:night");
    // The cookie opens the pages, and not the API.
    assert_eq!(door.get("/runs", &cookie).await.0, 401);

    // A reader may not act, not even with a valid form key.
    let (cookie, key) = door.session(READER).await;
    let (_, _, store) = door.get("/dashboard/merchants/1001", &cookie).await;
    assert!(!store.contains(">Rerun<"), "{store}");
    assert_eq!(door.post(rerun, (&cookie, ours), &[("form_key", &key)]).await.0, 403);
}

/// The documentation shows a picture of the dashboard. Beside it are the labels of that page, as they were then: another
/// label means that the picture is out of date.
async fn assert_picture_is_current(browser: &Browser, daemon: &Daemon) {
    browser.page.goto(&format!("{}/", daemon.url)).await.unwrap();
    let labels = browser
        .run("return [...document.querySelectorAll('nav a, h2, dt, th, button, .legend li')].map(one => one.textContent.trim().replace(/[0-9].*/, '')).join('\\n')")
        .await;
    let labels = format!("{}\n", labels.as_str().unwrap());
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(images.join("dashboard.png"), browser.page.screenshot().await.unwrap()).unwrap();
        fs::write(images.join("dashboard.labels"), &labels).unwrap();
    }
    let pictured = fs::read_to_string(images.join("dashboard.labels")).unwrap_or_default();
    assert_eq!(labels, pictured, "docs/images/dashboard.png is old: UPDATE_DOCS=1 tests/run --test it -- in_a_browser");
}

/// A person at a wide and at a narrow screen, by day and by night, with a keyboard. The pictures are left for people to
/// look at.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_browser() {
    let (_site, daemon) = a_site_after_a_night(Engine::Sqlite).await;
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    fs::create_dir_all(&pictures).unwrap();
    let (_, run) = daemon.get("/runs?merchant_id=1001").await;
    let run = format!("/dashboard/runs/{}", run["runs"][0]["run_id"].as_str().unwrap());
    let pages = [
        ("overview", "/"),
        ("merchants", "/dashboard/merchants"),
        ("merchant", "/dashboard/merchants/1001"),
        ("run", run.as_str()),
    ];
    let mut grounds = Vec::new();
    for (theme, width) in [(Theme::Light, 1280), (Theme::Dark, 1280), (Theme::Light, 390), (Theme::Dark, 390)] {
        let browser = Browser::open(width, theme).await;
        for (name, path) in pages {
            browser.page.goto(&format!("{}{path}", daemon.url)).await.unwrap();
            let picture = browser.page.screenshot().await.unwrap();
            fs::write(pictures.join(format!("{name}-{theme:?}-{width}.png").to_lowercase()), picture).unwrap();
            let beyond = browser.run("return document.scrollingElement.scrollWidth - window.innerWidth").await;
            assert!(beyond.as_f64().unwrap() <= 0.0, "{name} is {beyond} wider than a window of {width}");
            let others = browser.run("return performance.getEntriesByType('resource').filter(one => !one.name.startsWith(location.origin)).length").await;
            assert_eq!(others, 0, "{name} fetches from elsewhere");
        }
        grounds.push(browser.run("return getComputedStyle(document.body).backgroundColor").await);
        let direction = "return getComputedStyle(document.querySelector('bdi')).direction";
        browser.page.goto(&format!("{}/dashboard/merchants", daemon.url)).await.unwrap();
        assert_eq!(browser.run(direction).await, "rtl");
        if matches!((theme, width), (Theme::Light, 1280)) {
            assert_picture_is_current(&browser, &daemon).await;
        }
        browser.close().await;
    }
    assert_eq!(grounds[0], grounds[2]);
    assert_ne!(grounds[0], grounds[1], "by night it is dark");

    // By keyboard alone: the first stop skips what every page begins with, and a button can be reached and pressed.
    let browser = Browser::open(1280, Theme::Light).await;
    browser.page.goto(&format!("{}/dashboard/merchants/1002", daemon.url)).await.unwrap();
    let mut stops = Vec::new();
    for _ in 0..12 {
        browser.page.active_element().await.unwrap().send_keys(&Key::Tab.to_string()).await.unwrap();
        let text = browser.page.active_element().await.unwrap().text().await.unwrap();
        stops.push(text.clone());
        if text == "Rerun" {
            break;
        }
    }
    assert_eq!(stops[0], "To the content", "{stops:?}");
    assert_eq!(stops.last().unwrap(), "Rerun", "{stops:?}");
    browser.page.active_element().await.unwrap().send_keys(&Key::Enter.to_string()).await.unwrap();
    browser.page.wait().for_element(Locator::XPath("//h1[contains(., 'Run')]")).await.unwrap();
    assert!(browser.page.current_url().await.unwrap().path().starts_with("/dashboard/runs/"));
    daemon.await_run("merchant_id=1002", |run| run["trigger"] == "http" && run["status"] == "succeeded").await;
    browser.close().await;
}

/// The session of a real browser.
#[tokio::test(flavor = "multi_thread")]
async fn signing_in_with_a_browser() {
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    site.set("HTTP__API_TOKENS", &format!("night:operate:{OPERATOR}"));
    let daemon = site.serve().await;
    let browser = Browser::open(1280, Theme::Light).await;
    let page = &browser.page;
    page.goto(&format!("{}/dashboard/merchants/1001", daemon.url)).await.unwrap();
    assert_eq!(page.current_url().await.unwrap().path(), "/dashboard/sign-in");
    page.find(Locator::Id("token")).await.unwrap().send_keys(OPERATOR).await.unwrap();
    page.find(Locator::Css("button")).await.unwrap().click().await.unwrap();
    page.wait().for_element(Locator::XPath("//h2[. = 'State']")).await.unwrap();
    assert_eq!(page.current_url().await.unwrap().path(), "/dashboard/merchants/1001");
    assert_eq!(browser.run("return document.cookie").await, "", "no script can read it");
    page.find(Locator::XPath("//button[. = 'Pause']")).await.unwrap().click().await.unwrap();
    page.wait().for_element(Locator::XPath("//button[. = 'Resume']")).await.unwrap();
    assert_eq!(site.database.text("SELECT state FROM merchants").await, "paused");
    page.find(Locator::XPath("//button[. = 'Sign out']")).await.unwrap().click().await.unwrap();
    page.wait().for_element(Locator::Id("token")).await.unwrap();
    page.goto(&daemon.url).await.unwrap();
    assert_eq!(page.current_url().await.unwrap().path(), "/dashboard/sign-in");
    browser.close().await;
}
