//! Pages for a browser: what runs here, and a container's log files.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bobbin_service::http::answer::plain_headers;

use super::caller::Caller;
use super::problem::Problem;
use super::rest::state;
use super::{Web, container_id, moment};

/// Nothing on these pages runs, and nothing is loaded from anywhere.
pub(super) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:14px sans-serif;margin:1.5em}pre{background:#f6f6f6;padding:1em;\
     white-space:pre-wrap;word-break:break-all}td,th{text-align:left;padding:.2em 1em .2em 0}";

/// What a page begins with; `title` is escaped here.
pub(super) fn head(title: &str) -> String {
    let mut page = String::from("<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.push_str("<title>");
    escape(title, &mut page);
    let _ = write!(page, "</title><style>{STYLE}</style></head><body><h1>");
    escape(title, &mut page);
    page.push_str("</h1>");
    page
}

pub(super) const TAIL: &str = "</body></html>\n";

/// Writes text as it may stand in a page: markup is escaped, and control characters and those that
/// turn the direction of reading are shown instead of obeyed. A carriage return is left: a page
/// reads it as the end of a line.
pub(super) fn escape(text: &str, page: &mut String) {
    for c in text.chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            '\n' | '\t' | '\r' => page.push(c),
            // Their pictures: U+2400 is that of NUL.
            '\u{0}'..='\u{1f}' => {
                page.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'));
            }
            '\u{7f}' => page.push('\u{2421}'),
            '\u{80}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => page.push('\u{fffd}'),
            _ => page.push(c),
        }
    }
}

/// A name as it may stand in the path of a link.
pub(super) fn in_link(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn page(text: String) -> Response {
    let mut response = (plain_headers("text/html;charset=utf-8"), text).into_response();
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        axum::http::HeaderValue::from_static(POLICY),
    );
    response
}

/// GET /node.
pub(super) async fn node(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let made = async {
        let views = web.views(&caller).await?;
        let (capacity, used) = web
            .ask(|core| (core.accounting().capacity(), core.accounting().used()))
            .await?;
        let mut text = head(&format!("Node {}", web.node.node_id));
        let _ = write!(
            text,
            "<p>{} of {} MiB and {} of {} vcores are granted. <a href=\"/metrics\">Metrics</a>, <a \
             href=\"/ws/v1/node/info\">node</a> and <a href=\"/ws/v1/node/containers\">containers</a> \
             as data.</p><table><tr><th>Container<th>User<th>State<th>MiB<th>vcores<th>Logs",
            used.memory_mib, capacity.memory_mib, used.vcores, capacity.vcores
        );
        for view in views {
            let user = view.user.as_str();
            let _ = write!(text, "<tr><td>{}<td>", view.container);
            escape(user, &mut text);
            let _ = write!(
                text,
                "<td>{}<td>{}<td>{}<td><a href=\"/node/containerlogs/{}/{}\">logs</a>",
                state(&view),
                view.resource.memory_mib,
                view.resource.vcores,
                view.container,
                in_link(user)
            );
        }
        text.push_str("</table>");
        text.push_str(TAIL);
        Ok::<_, Problem>(text)
    };
    match made.await {
        Ok(text) => page(text),
        Err(problem) => problem.text(),
    }
}

/// GET /node/containerlogs/{container}/{user}: which files there are.
pub(super) async fn files(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    Path((container, user)): Path<(String, String)>,
) -> Response {
    let made = async {
        let id = container_id(&container)?;
        let files = web.list_files(&caller, id).await?;
        let mut text = head(&format!("Logs for {id}"));
        for file in files {
            let _ = write!(
                text,
                "<p><a href=\"/node/containerlogs/{id}/{}/{}?start=-4096\">",
                in_link(&user),
                in_link(&file.file)
            );
            escape(&file.file, &mut text);
            let _ = write!(
                text,
                " : Total file length is {} bytes.</a> {}</p>",
                file.size,
                moment::written(file.mtime_ms)
            );
        }
        text.push_str(TAIL);
        Ok::<_, Problem>(text)
    };
    match made.await {
        Ok(text) => page(text),
        Err(problem) => problem.text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_obeyed() {
        let mut page = String::new();
        escape(
            "<script>'\"&\u{1b}[31m\0\u{7f}\u{202e}\u{9b}ok\r\n\tä",
            &mut page,
        );
        assert_eq!(
            page,
            "&lt;script&gt;&#39;&quot;&amp;\u{241b}[31m\u{2400}\u{2421}\u{fffd}\u{fffd}ok\r\n\tä"
        );
        assert_eq!(in_link("a/../b\"c"), "a%2F%2E%2E%2Fb%22c");
    }
}
