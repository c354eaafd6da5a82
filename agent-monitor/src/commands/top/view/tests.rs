//! The screen, as a terminal would show it.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::*;
use crate::commands::top::fixture;
use crate::commands::top::look::{Belongings, MOST, Sample};
use crate::escape::is_unsafe;
use crate::event::Severity;

/// An app that has seen two samples, and two alerts.
fn app() -> App {
    let mut app = App::new(Vec::new());
    for sample in fixture::busy() {
        app.take(sample);
    }
    app.alerts.merge(vec![
        fixture::alert("web", 1, Severity::Critical),
        fixture::alert("miner", 2, Severity::High),
    ]);
    app
}

fn press(app: &mut App, keys: &[KeyCode]) {
    for key in keys {
        app.key(KeyEvent::new(*key, KeyModifiers::NONE));
    }
}

fn drawn(app: &mut App, width: u16, height: u16, theme: Theme) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
    let drawn = terminal.draw(|frame| draw(frame, app, theme));
    drawn.expect("memory");
    terminal
}

/// The screen's lines.
fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let terminal = drawn(app, width, height, Theme::new(false));
    let cells = terminal.backend().buffer().content();
    let lines = cells.chunks(usize::from(width.max(1)));
    let lines = lines.map(|cells| cells.iter().map(|cell| cell.symbol()).collect::<String>());
    lines.map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn all_agents_are_on_one_screen_with_what_is_wrong() {
    let mut app = app();
    assert_eq!(
        screen(&mut app, 80, 14),
        [
            "node-1  attached, up 12.0s  agent-monitor 0.1.0",
            "seen      1,000 events/s  37 lost/s  3 agents, 14 processes, 35 live flows",
            "coverage  network of agent-miner not covered; 37 records lost at quota; 1 thing…",
            "sinks     siem 120 behind: connection refused, local up to date",
            "AGENT             PROCS  FLOWS  CONN/s    OUT/s     IN/s ALERTS▾            LOST",
            "agent-web            12     34      10   1.2 MB    34 kB 2 critical +3         0",
            "agent-miner           2      1       0      0 B      0 B 1 high               37",
            "agent-idle            0      0       0      0 B      0 B -                     0",
            " Alerts 2 ──────────────────────────────────────────────────────────────────────",
            "Jan 31    high/high      agent-miner       reverse-ssh-tunnel  ssh[5273] lets 1…",
            "Jan 31    critical/high  agent-web         reverse-ssh-tunnel  ssh[5273] lets 1…",
            "",
            "",
            "q quit  ? help  ↑↓ choose  Enter open  s sort  r reverse  / filter  Tab alerts",
        ]
    );
}

#[test]
fn an_opened_agent_shows_its_flows_processes_and_alerts() {
    let mut app = app();
    press(&mut app, &[KeyCode::Enter]);
    assert!(screen(&mut app, 80, 20)[6].starts_with(" Flows … "));
    app.take_belongings("web", Some(fixture::belongings()));
    assert_eq!(
        screen(&mut app, 80, 20)[4..],
        [
            "agent-web  watched, covered  /agents/web",
            "10 connects/s  1.2 MB/s out  34 kB/s in",
            " Flows 2 ───────────────────────────────────────────────────────────────────────",
            "REMOTE                                 PROTOCOL   STATE             OUT       IN",
            "→ git.example (203.0.113.9:443)        tls        established     34 MB     17 B",
            "→ [2001:db8::1]:443                    tcp        established     120 B     17 B",
            "",
            "",
            "",
            "",
            " Processes 1 ───────────────────────────────────────────────────────────────────",
            "     PID    UID COMMAND",
            "    5273   1000 ssh -N 'a b'",
            " Alerts 1 ──────────────────────────────────────────────────────────────────────",
            "Jan 31    critical/high  reverse-ssh-tunnel  ssh[5273] lets 198.51.100.1:22 rea…",
            "Esc back  Tab next list  ↑↓ choose  ? help  q quit",
        ]
    );
    let mut many = fixture::belongings();
    let process = many.processes[0].clone();
    many.processes.resize(MOST, process);
    app.take_belongings("web", Some(many));
    assert!(
        screen(&mut app, 80, 20)
            .join("\n")
            .contains(" Processes 200 ─")
    );
    let [_, mut more] = fixture::busy();
    more.activity.agents[1].processes = 1_234;
    app.take(more);
    assert!(
        screen(&mut app, 80, 20)
            .join("\n")
            .contains(" Processes 200 of 1,234 ─")
    );
    app.take(fixture::sample(13, &[]));
    assert_eq!(screen(&mut app, 80, 20)[4], "agent-web  gone  /agents/web");
}

#[test]
fn an_opened_alert_shows_its_evidence_and_is_scrolled_to_its_end_and_no_further() {
    let mut app = app();
    press(&mut app, &[KeyCode::Tab, KeyCode::End, KeyCode::Enter]);
    let shown = screen(&mut app, 60, 30).join("\n");
    for text in [
        "severity  critical/high",
        "process   ssh -R 9001:localhost:8000",
        "seen      3 times from 2026-01-31 12:00:00 to",
        "ATT&CK    T1572",
        "incident  incident-1 revision 1",
        "evidence  - 564 bytes in, then 392 bytes out",
    ] {
        assert!(shown.contains(text), "no {text} in\n{shown}");
    }
    press(&mut app, &[KeyCode::End]);
    let shown = screen(&mut app, 60, 8);
    assert_eq!(shown[6], "evidence  - 564 bytes in, then 392 bytes out");
    press(&mut app, &[KeyCode::Esc]);
    assert!(screen(&mut app, 60, 30).join("\n").contains("AGENT"));
}

#[test]
fn a_daemon_that_does_not_answer_is_told_of_and_rates_are_gone() {
    let mut app = app();
    app.fail("no agent-monitor listens on /run/x.sock".into());
    let shown = screen(&mut app, 80, 14);
    assert_eq!(
        shown[0],
        "NO ANSWER, trying again: no agent-monitor listens on /run/x.sock"
    );
    assert!(
        shown[5].contains(" -        -        - 2 critical"),
        "{}",
        shown[5]
    );
}

#[test]
fn a_daemon_that_is_slow_is_told_of_while_it_is() {
    let mut app = app();
    app.waiting = Duration::from_millis(1_900);
    assert!(screen(&mut app, 80, 14)[0].starts_with("node-1"));
    app.waiting = Duration::from_millis(3_900);
    let shown = screen(&mut app, 80, 14);
    assert_eq!(shown[0], "NO ANSWER for 3 s, what is shown is as old");
}

#[test]
fn the_page_of_help_fits_a_common_terminal() {
    let mut app = app();
    press(&mut app, &[KeyCode::Char('?')]);
    let shown = screen(&mut app, 80, 24);
    assert!(!shown[4..].join("\n").contains('…'), "{shown:#?}");
    assert!(
        shown
            .iter()
            .any(|line| line.starts_with("q  Ctrl-C   quit"))
    );
    assert!(
        shown.iter().any(|line| line.starts_with("LOST  ")),
        "{shown:#?}"
    );
}

#[test]
fn a_filter_is_shown_while_it_is_typed_and_after() {
    let mut app = app();
    press(&mut app, &[KeyCode::Char('/'), KeyCode::Char('w')]);
    assert!(screen(&mut app, 80, 14)[13].starts_with("filter: w"));
    press(&mut app, &[KeyCode::Enter]);
    let shown = screen(&mut app, 80, 14);
    assert!(shown[13].starts_with("filter: w  q quit"), "{}", shown[13]);
    assert!(!shown.join("\n").contains("agent-idle"));
    press(&mut app, &[KeyCode::Char('/'), KeyCode::Char('?')]);
    assert_eq!(
        screen(&mut app, 80, 14)[4],
        "no agent whose name contains the filter"
    );
}

#[test]
fn no_screen_is_too_small_or_too_large_whatever_is_open() {
    let open: [&[KeyCode]; 7] = [
        &[],
        &[KeyCode::Tab],
        &[KeyCode::Char('?')],
        &[KeyCode::Char('/'), KeyCode::Char('a')],
        &[KeyCode::Enter],
        &[KeyCode::Enter, KeyCode::Tab],
        &[KeyCode::Tab, KeyCode::Down, KeyCode::Enter],
    ];
    for keys in open {
        let mut app = app();
        press(&mut app, keys);
        app.take_belongings("web", Some(fixture::belongings()));
        for width in [0, 1, 2, 3, 5, 8, 13, 20, 21, 34, 80, 300] {
            for height in (0..12).chain([24, 100]) {
                screen(&mut app, width, height);
            }
        }
    }
    let small = screen(&mut app(), 20, 5);
    assert!(small[2].starts_with("agent-web"), "{small:#?}");
}

#[test]
fn a_line_of_a_list_that_is_longer_than_the_screen_is_scrolled_to() {
    let agents: Vec<_> = (100..300).map(|n| fixture::agent(&n.to_string())).collect();
    let mut app = App::new(Vec::new());
    app.take(fixture::sample(1, &agents));
    press(&mut app, &[KeyCode::End]);
    let shown = screen(&mut app, 80, 24).join("\n");
    assert!(
        shown.contains("agent-299") && !shown.contains("agent-100"),
        "{shown}"
    );
}

/// What agents may be called, or may write, to be taken for the screen.
const HOSTILE: [&str; 6] = [
    "\x1b[2J\x1b[1;1Hall is well",
    "a\r\n\x07b\t\u{9b}31m",
    "\u{202e}txt.exe\u{2066}",
    "文件名字文件名字文件名字文件名字文件名字文件名字文件名字文件名字文件名字文件名字文件名字",
    "e\u{301}\u{301}\u{301}🦀👩\u{200d}🚀",
    "",
];

fn hostile(text: &str) -> (Sample, Belongings) {
    let [_, mut sample] = fixture::busy();
    for agent in &mut sample.status.agents {
        agent.name = text.into();
        agent.cgroup = text.into();
        agent.state = text.into();
    }
    sample.status.node = text.into();
    sample.status.version = text.into();
    sample.status.counters.losses = [(text.to_owned(), 1)].into();
    sample.status.store.error = Some(text.into());
    for sink in &mut sample.status.sinks {
        sink.name = text.into();
        sink.last_error = Some(text.into());
    }
    let mut has = fixture::belongings();
    for flow in &mut has.flows {
        for member in [&mut flow.protocol, &mut flow.server_name, &mut flow.result] {
            *member = text.into();
        }
        flow.remote.ip = text.into();
    }
    for process in &mut has.processes {
        process.argv = vec![text.into(); 3];
    }
    (sample, has)
}

#[test]
fn nothing_that_agents_say_reaches_the_terminal_as_a_command_or_leaves_its_columns() {
    for text in HOSTILE {
        let (sample, has) = hostile(text);
        let mut alert = fixture::alert("web", 1, Severity::High);
        alert.agent.name = text.into();
        alert.process.argv = vec![text.into()];
        let body = &mut alert.alert;
        let members = [
            &mut body.rule,
            &mut body.confidence,
            &mut body.summary,
            &mut body.coverage,
            &mut body.first_seen,
        ];
        members.into_iter().for_each(|member| *member = text.into());
        body.evidence = vec![text.into()];
        alert.time = text.into();
        for keys in [
            &[][..],
            &[KeyCode::Enter],
            &[KeyCode::Tab, KeyCode::Down, KeyCode::Enter],
        ] {
            let mut app = App::new(Vec::new());
            app.take(sample.clone());
            app.alerts.merge(vec![alert.clone()]);
            press(&mut app, keys);
            app.take_belongings("web", Some(has.clone()));
            app.take_belongings("miner", Some(has.clone()));
            let theme = Theme::new(true);
            for width in [20, 81, 120] {
                let terminal = drawn(&mut app, width, 30, theme);
                for cell in terminal.backend().buffer().content() {
                    let symbol = cell.symbol();
                    assert!(!symbol.contains(is_unsafe), "{symbol:?} of {text:?}");
                    assert!(symbol.width() <= 2, "{symbol:?} of {text:?}");
                }
            }
            if keys.is_empty() {
                // What stands to the right of a name stays where it is.
                let line = &drawn(&mut app, 80, 30, theme);
                let row = (0..80).map(|x| line.backend().buffer()[(x, 5)].symbol());
                let right: Vec<_> = row.skip(18).collect();
                assert_eq!(
                    right.concat().trim_end(),
                    "   12     34       -        -        - 2 critical +3         0",
                    "{text:?}"
                );
            }
        }
    }
}

#[test]
fn there_are_colours_only_where_they_are_wanted() {
    let mut app = app();
    for (theme, expected) in [(Theme::new(true), true), (Theme::new(false), false)] {
        let terminal = drawn(&mut app, 80, 24, theme);
        let cells = terminal.backend().buffer().content();
        let is_colored = |cell: &ratatui::buffer::Cell| {
            [cell.fg, cell.bg]
                .iter()
                .any(|color| *color != Color::Reset)
        };
        assert_eq!(cells.iter().any(is_colored), expected);
        // What is chosen is told apart either way.
        let cell = &terminal.backend().buffer()[(0, 5)];
        assert!(cell.modifier.contains(Modifier::REVERSED));
    }
}
