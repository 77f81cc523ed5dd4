//! The whole screen: keys and answers in, frames out.

use bobbin_proto::v1;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use expect_test::{Expect, expect};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::frame::{Look, draw};
use super::keys::Action;
use super::state::{Link, List, Overlay, Snapshot, Summary, Top, View};
use crate::output::{Application, Container, Node};

const NOW_MS: u64 = 1_700_000_100_000;

fn application(number: u32, name: &str, state: &str) -> Application {
    let report = v1::ApplicationReport {
        id: format!("application_1700000000000_{number:04}"),
        name: name.to_owned(),
        user: "ada".to_owned(),
        queue: "default".to_owned(),
        state: state.to_owned(),
        final_status: "UNDEFINED".to_owned(),
        submitted_ms: NOW_MS - 60_000 + u64::from(number),
        started_ms: NOW_MS - 50_000,
        application_type: "BOBBIN".to_owned(),
        used: Some(v1::Resource {
            memory_mib: 512 * u64::from(number),
            vcores: number,
            countable: vec![],
        }),
        containers: number,
        ..v1::ApplicationReport::default()
    };
    Application::in_list(report)
}

fn container(
    number: u32,
    cpu_usec: u64,
    measured_ms: u64,
) -> (v1::ContainerStatus, v1::ContainerUsage) {
    let id = format!("container_e01_1700000000000_0002_01_{number:06}");
    let status = v1::ContainerStatus {
        container_id: id.clone(),
        state: "RUNNING".to_owned(),
        resource: Some(v1::Resource {
            memory_mib: 1024,
            vcores: 2,
            countable: vec![],
        }),
        node_id: "worker1:8041".to_owned(),
        ..v1::ContainerStatus::default()
    };
    let usage = v1::ContainerUsage {
        container_id: id,
        memory_bytes: (u64::from(number) * 300) << 20,
        cpu_usec,
        processes: 3,
        measured_ms,
        running_ms: 10_000,
    };
    (status, usage)
}

fn containers(list: Vec<(v1::ContainerStatus, v1::ContainerUsage)>) -> List {
    let (statuses, usages) = list.into_iter().unzip();
    List::Containers {
        of: "application_1700000000000_0002".to_owned(),
        rows: Container::measured(statuses, usages),
        silent: Vec::new(),
    }
}

fn snapshot(list: List) -> Snapshot {
    Snapshot {
        now_ms: NOW_MS,
        summary: Summary {
            nodes: 2,
            applications: 3,
            memory_mib: 22_000,
            memory_used_mib: 1_536,
            vcores: 16,
            vcores_used: 3,
        },
        list,
        details: None,
    }
}

fn three() -> Snapshot {
    snapshot(List::Applications {
        rows: vec![
            application(1, "flights", "RUNNING"),
            application(2, "pi", "RUNNING"),
            application(3, "nightly", "ACCEPTED"),
        ],
        more: false,
    })
}

fn top() -> Top {
    let mut top = Top::new(None, false, NOW_MS);
    top.on_snapshot(three());
    top
}

fn screen_of(top: &mut Top, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            draw(top, Look { color: true }, frame);
        })
        .unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        // A wide letter's second cell is empty.
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[track_caller]
fn check(top: &mut Top, width: u16, height: u16, screen: &Expect) {
    screen.assert_eq(&screen_of(top, width, height));
}

fn press(top: &mut Top, keys: &str) -> Action {
    let mut action = Action::None;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            '\t' => KeyCode::Tab,
            key => KeyCode::Char(key),
        };
        action = top.on_key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    action
}

#[test]
fn applications_newest_first() {
    check(
        &mut top(),
        80,
        9,
        &expect![[r#"
            bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.4 GiB  vcores 3 of 16
            [1 Applications] 2 Nodes  3 Containers   3 of 3
            ID      NAME                 STATE       CONT     MEMORY  VCORES    AGEv     RAN
            0003    nightly              ACCEPTED       3   1536 MiB       3     59s     50s
            0002    pi                   RUNNING        2   1024 MiB       2     59s     50s
            0001    flights              RUNNING        1    512 MiB       1     59s     50s


            q quit  ? help  Enter details  c containers  l log  K kill  / filter  s sort  r…
        "#]],
    );
    check(
        &mut top(),
        150,
        9,
        &expect![[r#"
        bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.4 GiB  vcores 3 of 16
        [1 Applications] 2 Nodes  3 Containers   3 of 3
        ID      NAME                              USER        QUEUE       TYPE      STATE      FINAL      EXIT   CONT     MEMORY  VCORES  PRIO    AGEv     RAN
        0003    nightly                           ada         default     BOBBIN    ACCEPTED   UNDEFINED     -      3   1536 MiB       3     0     59s     50s
        0002    pi                                ada         default     BOBBIN    RUNNING    UNDEFINED     -      2   1024 MiB       2     0     59s     50s
        0001    flights                           ada         default     BOBBIN    RUNNING    UNDEFINED     -      1    512 MiB       1     0     59s     50s


        q quit  ? help  Enter details  c containers  l log  K kill  / filter  s sort  r reverse  a ended  p pause
    "#]],
    );
    check(
        &mut top(),
        40,
        7,
        &expect![[r#"
            bobbin top  nodes 2  applications 3  me…
            [1 Applications] 2 Nodes  3 Containers …
            ID      NAME           STATE        AGEv
            0003    nightly        ACCEPTED      59s
            0002    pi             RUNNING       59s
            0001    flights        RUNNING       59s
            q quit  ? help  Enter details  c contai…
        "#]],
    );
}

#[test]
fn nodes() {
    let mut top = top();
    press(&mut top, "2");
    assert_eq!(top.wanted().view, View::Nodes);
    let node = Node::from(v1::NodeReport {
        id: "worker1:8041".to_owned(),
        state: "RUNNING".to_owned(),
        total: Some(v1::Resource {
            memory_mib: 11_000,
            vcores: 8,
            countable: vec![],
        }),
        used: Some(v1::Resource {
            memory_mib: 1_536,
            vcores: 3,
            countable: vec![],
        }),
        containers: 3,
        last_seen_ms: NOW_MS - 400,
        machine_memory_used_mib: 3_400,
        machine_cpu_permille: 123,
        ..v1::NodeReport::default()
    });
    top.on_snapshot(snapshot(List::Nodes(vec![node])));
    check(
        &mut top,
        100,
        6,
        &expect![[r#"
        bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.4 GiB  vcores 3 of 16
         1 Applications [2 Nodes] 3 Containers   1 of 1
        ID^                     STATE       CONT    GRANTED         OF     VCORES     IN USE     CPU    SEEN
        worker1:8041            RUNNING        3   1536 MiB   10.7 GiB        3/8   3400 MiB   12.3%   400ms

        q quit  ? help  Enter details  c containers  l log  K kill  / filter  s sort  r reverse  a ended  p…
    "#]],
    );
    press(&mut top, "\n");
    check(
        &mut top,
        60,
        16,
        &expect![[r#"
            bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.…
             1 Applications [2 Nodes] 3 Containers   1 of 1
            id:         worker1:8041
            state:      RUNNING
            memory:     1536 of 11000 MiB used
            reserved:   0 MiB
            vcores:     3 of 8 used
            containers: 3
            machine:    3400 MiB in use, processors 12.3 %
            seen:       400ms ago





            Esc back  l log  K kill  q
        "#]],
    );
}

#[test]
fn containers_show_what_they_use() {
    let mut top = top();
    press(&mut top, "jc");
    assert_eq!(
        top.wanted().of.as_deref(),
        Some("application_1700000000000_0002")
    );
    let first = containers(vec![
        container(1, 5_000_000, 1_000),
        container(2, 100_000, 1_000),
    ]);
    top.on_snapshot(snapshot(first));
    check(
        &mut top,
        90,
        7,
        &expect![[r#"
        bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.4 GiB  vcores 3 of 16
         1 Applications  2 Nodes [3 Containers 0002]  2 of 2
        ID^         NODE            STATE         MEMORY         OF    MEM%      CPU    TIME  EXIT
        01_000001   worker1:8041    RUNNING      300 MiB   1024 MiB   29.2%    50.0%    5.0s     -
        01_000002   worker1:8041    RUNNING      600 MiB   1024 MiB   58.5%     1.0%   100ms     -

        q quit  ? help  Enter details  c containers  l log  K kill  / filter  s sort  r reverse  …
    "#]],
    );
    // A second later: one has used a whole core, the other half of one.
    let second = containers(vec![
        container(1, 6_000_000, 2_000),
        container(2, 600_000, 2_000),
    ]);
    top.on_snapshot(snapshot(second));
    check(
        &mut top,
        90,
        7,
        &expect![[r#"
        bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.4 GiB  vcores 3 of 16
         1 Applications  2 Nodes [3 Containers 0002]  2 of 2
        ID^         NODE            STATE         MEMORY         OF    MEM%      CPU    TIME  EXIT
        01_000001   worker1:8041    RUNNING      300 MiB   1024 MiB   29.2%   100.0%    6.0s     -
        01_000002   worker1:8041    RUNNING      600 MiB   1024 MiB   58.5%    50.0%   600ms     -

        q quit  ? help  Enter details  c containers  l log  K kill  / filter  s sort  r reverse  …
    "#]],
    );
    // The same measurement again, then a clock that was set back.
    for measured_ms in [2_000, 1_500] {
        let again = containers(vec![container(1, 6_000_000, measured_ms)]);
        top.on_snapshot(snapshot(again));
        let usage = top.containers.rows()[0].usage.as_ref().unwrap();
        assert_eq!(usage.cpu_permille, 1000);
    }
    // An answer about another application comes too late.
    press(&mut top, "1kc");
    top.on_snapshot(snapshot(containers(vec![container(9, 0, 0)])));
    assert!(top.containers.rows().is_empty());
}

#[test]
fn filter_sort_and_reverse() {
    let mut top = top();
    press(&mut top, "/NI");
    check(
        &mut top,
        80,
        6,
        &expect![[r#"
            bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.4 GiB  vcores 3 of 16
            [1 Applications] 2 Nodes  3 Containers   3 of 3  /NI
            ID      NAME                 STATE       CONT     MEMORY  VCORES    AGEv     RAN
            0003    nightly              ACCEPTED       3   1536 MiB       3     59s     50s
            0002    pi                   RUNNING        2   1024 MiB       2     59s     50s
            /NI_
        "#]],
    );
    press(&mut top, "\u{1b}");
    assert_eq!(top.filter(), "");
    press(&mut top, "/flix\u{8}\n");
    assert!(matches!(top.overlay, Overlay::None));
    assert_eq!((top.filter(), top.applications.counts()), ("fli", (1, 3)));
    press(&mut top, "\u{1b}");
    assert_eq!(top.applications.counts(), (3, 3));
    // From the age to the time it ran, then round to the id and to the name.
    press(&mut top, "sss");
    assert_eq!(top.applications.chosen().unwrap().name, "flights");
    check(
        &mut top,
        80,
        7,
        &expect![[r#"
            bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.4 GiB  vcores 3 of 16
            [1 Applications] 2 Nodes  3 Containers   3 of 3
            ID      NAME^            USER        STATE       CONT     MEMORY  VCORES     RAN
            0001    flights          ada         RUNNING        1    512 MiB       1     50s
            0003    nightly          ada         ACCEPTED       3   1536 MiB       3     50s
            0002    pi               ada         RUNNING        2   1024 MiB       2     50s
            q quit  ? help  Enter details  c containers  l log  K kill  / filter  s sort  r…
        "#]],
    );
    press(&mut top, "r");
    assert_eq!(top.applications.row_at(0).unwrap().name, "pi");
    press(&mut top, "<");
    assert_eq!(top.applications.row_at(0).unwrap().name, "flights");
}

#[test]
fn a_kill_asks_first() {
    let mut top = top();
    assert_eq!(press(&mut top, "K"), Action::None);
    check(
        &mut top,
        80,
        7,
        &expect![[r#"
            bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.4 GiB  vcores 3 of 16
            [1 Applications] 2 Nodes  3 Containers   3 of 3
            ID      NAME                 STATE       CONT     MEMORY  VCORES    AGEv     RAN
            0003    nightly              ACCEPTED       3   1536 MiB       3     59s     50s
            0002    pi                   RUNNING        2   1024 MiB       2     59s     50s
            0001    flights              RUNNING        1    512 MiB       1     59s     50s
            kill application_1700000000000_0003? y/n (nightly of ada, ACCEPTED)
        "#]],
    );
    // Whatever is typed on the way, only y kills.
    assert_eq!(press(&mut top, "\nx j1"), Action::None);
    assert_eq!(press(&mut top, "n"), Action::None);
    assert!(matches!(top.overlay, Overlay::None));
    assert_eq!(press(&mut top, "y"), Action::None);
    let killed = Action::Kill("application_1700000000000_0003".to_owned());
    assert_eq!(press(&mut top, "Ky"), killed);
    // The question is about the row that was chosen, whatever comes in between.
    press(&mut top, "jK");
    top.on_snapshot(snapshot(List::Applications {
        rows: vec![],
        more: false,
    }));
    let killed = Action::Kill("application_1700000000000_0002".to_owned());
    assert_eq!(press(&mut top, "y"), killed);
    assert_eq!(press(&mut top, "K"), Action::None);
    assert!(top.notice.is_some(), "there is nothing to kill");
    press(&mut top, "2K");
    assert!(top.notice.as_ref().is_some_and(|n| n.bad));
}

#[test]
fn details_are_renewed() {
    let mut top = top();
    press(&mut top, "j\n");
    let id = top.wanted().details.unwrap();
    assert_eq!(id, "application_1700000000000_0002");
    let mut newer = application(2, "pi", "FINISHED");
    newer.diagnostics = format!("very {} long", "x".repeat(60));
    let seen = Snapshot {
        details: Some(Box::new(newer)),
        ..three()
    };
    top.on_snapshot(seen);
    check(
        &mut top,
        60,
        20,
        &expect![[r#"
            bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.…
            [1 Applications] 2 Nodes  3 Containers   3 of 3
            id:           application_1700000000000_0002
            name:         pi
            user:         ada
            queue:        default
            type:         BOBBIN
            deploy mode:  cluster
            state:        FINISHED
            final status: UNDEFINED
            exit status:  -
            submitted:    59s ago
            ran:          50s
            holds:        2 containers, 1024 MiB, 2 vcores
            used in all:  0 MiB-seconds, 0 vcore-seconds
            diagnostics:  very xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
            xxxxxxxxxxxxxxxxxxx long


            Esc back  l log  K kill  q
        "#]],
    );
    press(&mut top, "G");
    let last = screen_of(&mut top, 60, 8);
    assert!(last.contains("long"), "{last}");
    press(&mut top, "q");
    assert!(matches!(top.overlay, Overlay::None) && top.wanted().details.is_none());
}

#[test]
fn logs_come_line_by_line() {
    let mut top = top();
    press(&mut top, "l");
    let Overlay::Log(log) = &top.overlay else {
        unreachable!("l opens a log")
    };
    let source = log.source.clone();
    assert_eq!((source.container.as_deref(), source.file), (None, "stdout"));
    top.on_log(&source, b"hello\nwor");
    top.on_log_status(&source, "following".to_owned());
    check(
        &mut top,
        76,
        7,
        &expect![[r#"
            bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.4 GiB  vcores 3 …
            [1 Applications] 2 Nodes  3 Containers   3 of 3
            hello
            wor


            stdout of application_1700000000000_0003  following  o other  Esc back
        "#]],
    );
    press(&mut top, "o");
    // What still comes of the other file is not shown.
    top.on_log(&source, b"late\n");
    assert!(!screen_of(&mut top, 76, 7).contains("late"));
    press(&mut top, "\u{1b}q");
    press(&mut top, "2l");
    assert!(top.notice.is_some(), "nodes have no logs here");
}

#[test]
fn a_lost_manager_is_said_and_what_was_seen_stays() {
    let mut top = top();
    top.on_failed("the resource manager at /run/x went away (connection refused)".to_owned());
    check(
        &mut top,
        80,
        7,
        &expect![[r#"
        bobbin top  nodes 2  applications 3  memory 1536 MiB of 21.4 GiB …  RECONNECTING
        [1 Applications] 2 Nodes  3 Containers   3 of 3
        ID      NAME                 STATE       CONT     MEMORY  VCORES    AGEv     RAN
        0003    nightly              ACCEPTED       3   1536 MiB       3     59s     50s
        0002    pi                   RUNNING        2   1024 MiB       2     59s     50s
        0001    flights              RUNNING        1    512 MiB       1     59s     50s
        reconnecting: the resource manager at /run/x went away (connection refused)
    "#]],
    );
    top.on_snapshot(three());
    assert_eq!(top.link, Link::Fine);
}

#[test]
fn help_pause_ended_and_the_way_out() {
    let mut top = top();
    press(&mut top, "?");
    assert!(screen_of(&mut top, 80, 24).contains("Ctrl+C"));
    press(&mut top, "xpa");
    assert!(top.wanted().paused && top.wanted().ended);
    assert!(screen_of(&mut top, 80, 24).contains("PAUSED"));
    press(&mut top, " \t\t\t");
    assert_eq!((top.view, top.paused), (View::Applications, false));
    let ctrl = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    press(&mut top, "K");
    assert_eq!(top.on_key(ctrl('c')), Action::Quit);
    assert_eq!(top.on_key(ctrl('z')), Action::Suspend);
    assert_eq!(press(&mut top, "nq"), Action::Quit);
}

/// Names that would clear the screen, ring, retitle the window, turn the line around or pile up.
const HOSTILE: [&str; 7] = [
    "\u{1b}[2J\u{1b}[H\u{1b}]0;owned\u{7}",
    "\u{9b}31mred\u{9d}0;x\u{9c}",
    "a\r\nb\tc\u{8}\u{8}",
    "\u{202e}gnp.exe\u{2066}",
    "日本語日本語日本語日本語日本語日本語日本語日本語日本語",
    "e\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}",
    "👩\u{200d}👩\u{200d}👧\u{200d}👦 \u{e0041}\u{feff}",
];

#[test]
fn no_name_drives_the_terminal() {
    for (name, width) in HOSTILE
        .iter()
        .flat_map(|name| [20, 80, 200].map(|width| (name, width)))
    {
        let mut top = Top::new(None, false, NOW_MS);
        let mut row = application(1, name, "RUNNING");
        row.user = (*name).to_owned();
        row.queue = (*name).to_owned();
        row.diagnostics = (*name).to_owned();
        row.tags = vec![(*name).to_owned()];
        let list = List::Applications {
            rows: vec![row, application(2, "plain", "RUNNING")],
            more: false,
        };
        top.on_snapshot(snapshot(list));
        top.tell((*name).to_owned(), true);
        let mut seen = screen_of(&mut top, width, 10);
        top.on_failed((*name).to_owned());
        for keys in ["j", "K", "n\n", "\u{1b}l", "\u{1b}/x"] {
            press(&mut top, keys);
            seen += &screen_of(&mut top, width, 10);
        }
        let driving =
            |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}\u{feff}".contains(c);
        assert!(!seen.contains(driving), "{name:?}: {seen:?}");
        // The other row is where it belongs.
        assert!(
            width < 80
                || seen
                    .lines()
                    .any(|line| line.contains("plain") && line.contains("RUNNING")),
            "{seen}"
        );
    }
}

#[test]
fn any_size_can_be_drawn() {
    for (width, height) in [
        (0, 0),
        (1, 1),
        (5, 3),
        (3, 50),
        (500, 1),
        (20, 2),
        (79, 4),
        (1000, 300),
    ] {
        let mut top = top();
        for keys in ["", "2", "3", "1\n", "\u{1b}?", "xK", "nl", "\u{1b}/a"] {
            press(&mut top, keys);
            let _ = screen_of(&mut top, width, height);
        }
    }
}

/// A frame of very many applications formats only those that are seen.
#[test]
fn frames_cost_what_is_seen() {
    let rows = (0..40_000)
        .map(|n| application(n, "many", "RUNNING"))
        .collect();
    let mut top = Top::new(None, false, NOW_MS);
    top.on_snapshot(snapshot(List::Applications { rows, more: true }));
    press(&mut top, "G");
    let screen = screen_of(&mut top, 80, 24);
    assert!(screen.contains("40000 of 40000+"), "{screen}");
    for _ in 0..50 {
        press(&mut top, "k");
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let mut formatted = 0;
        let look = Look { color: false };
        terminal
            .draw(|frame| formatted = draw(&mut top, look, frame))
            .unwrap();
        assert_eq!(formatted, 20);
    }
}
