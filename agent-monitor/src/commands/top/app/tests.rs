use super::*;
use crate::commands::top::fixture::{agent, alert, belongings, busy, sample};
use crate::commands::top::look::MOST;
use crate::event::Severity;

fn app() -> App {
    let mut app = App::new(Vec::new());
    for sample in busy() {
        app.take(sample);
    }
    app
}

fn press(app: &mut App, keys: &[KeyCode]) -> Action {
    let mut action = Action::Show;
    for key in keys {
        action = app.key(KeyEvent::new(*key, KeyModifiers::NONE));
    }
    action
}

fn names(app: &App) -> Vec<&str> {
    app.rows().into_iter().map(|row| &*row.id).collect()
}

fn chosen(app: &App) -> Option<&str> {
    let place = app.agents_at.selected()?;
    app.rows().get(place).map(|row| &*row.id)
}

#[test]
fn the_worst_is_on_top_and_chosen() {
    let app = app();
    assert_eq!(names(&app), ["web", "miner", "idle"]);
    assert_eq!(chosen(&app), Some("web"));
}

#[test]
fn keys_sort_and_the_choice_stays_on_its_agent() {
    let mut app = app();
    press(&mut app, &[KeyCode::Down]);
    assert_eq!(chosen(&app), Some("miner"));
    // After alerts: records lost, then names.
    press(&mut app, &[KeyCode::Char('s')]);
    assert_eq!((names(&app)[0], chosen(&app)), ("miner", Some("miner")));
    press(&mut app, &[KeyCode::Char('s')]);
    assert_eq!(names(&app), ["idle", "miner", "web"]);
    press(&mut app, &[KeyCode::Char('r')]);
    assert_eq!(names(&app), ["web", "miner", "idle"]);
    press(&mut app, &[KeyCode::Char('S')]);
    assert_eq!(app.sort.column, Column::Lost);
    assert_eq!(chosen(&app), Some("miner"));
}

#[test]
fn when_the_chosen_agent_vanishes_its_place_is_chosen() {
    let mut app = App::new(Vec::new());
    app.take(sample(1, &[agent("a"), agent("b"), agent("c")]));
    press(&mut app, &[KeyCode::End]);
    assert_eq!(chosen(&app), Some("c"));
    app.take(sample(2, &[agent("a"), agent("b")]));
    assert_eq!(chosen(&app), Some("b"));
    app.take(sample(3, &[]));
    assert_eq!((chosen(&app), app.agents_at.selected()), (None, None));
    assert_eq!(
        press(&mut app, &[KeyCode::Enter, KeyCode::Down]),
        Action::Show
    );
    assert!(app.opened.is_none());
    app.take(sample(4, &[agent("d")]));
    assert_eq!(chosen(&app), Some("d"));
}

#[test]
fn an_opened_agent_is_asked_about_at_once_and_stays_when_it_is_gone() {
    let mut app = app();
    assert_eq!(press(&mut app, &[KeyCode::Enter]), Action::Ask);
    app.take_belongings("another", Some(belongings()));
    assert!(app.opened.as_ref().is_some_and(|it| it.has.is_none()));
    app.take_belongings("web", Some(belongings()));
    app.take(sample(13, &[agent("idle")]));
    app.take_belongings("web", None);
    let opened = app.opened.as_ref().expect("it is open");
    assert!(opened.gone && opened.has.is_some());
    assert_eq!((&*opened.row.name, opened.row.flows), ("agent-web", 34));
    press(&mut app, &[KeyCode::Esc]);
    assert!(app.opened.is_none());
    app.take_belongings("web", Some(belongings()));
    assert!(app.opened.is_none(), "a late answer opens nothing");
}

#[test]
fn a_filter_is_typed_kept_and_forgotten() {
    let mut app = app();
    press(
        &mut app,
        &[KeyCode::Char('/'), KeyCode::Char('M'), KeyCode::Char('q')],
    );
    assert_eq!((names(&app).len(), chosen(&app)), (0, None), "q was typed");
    press(&mut app, &[KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!((names(&app), chosen(&app)), (vec!["miner"], Some("miner")));
    let [_, now] = busy();
    app.take(now);
    assert_eq!(names(&app), ["miner"]);
    press(&mut app, &[KeyCode::Esc]);
    assert_eq!(names(&app).len(), 3);
    assert_eq!(chosen(&app), Some("miner"));
    let long = vec![KeyCode::Char('x'); 1_000];
    press(&mut app, &[KeyCode::Char('/')]);
    press(&mut app, &long);
    assert_eq!(app.filter.len(), MAX_FILTER);
}

#[test]
fn keys_end_and_suspend_it() {
    let mut app = app();
    assert_eq!(press(&mut app, &[KeyCode::Char('q')]), Action::Quit);
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    assert_eq!(app.key(control('c')), Action::Quit);
    assert_eq!(app.key(control('z')), Action::Suspend);
    // Also where a page or a prompt is open.
    press(&mut app, &[KeyCode::Char('?')]);
    assert_eq!(press(&mut app, &[KeyCode::Char('q')]), Action::Quit);
    press(&mut app, &[KeyCode::Char('/')]);
    assert_eq!(app.key(control('c')), Action::Quit);
}

#[test]
fn every_list_is_moved_in_within_its_bounds() {
    let mut app = app();
    app.alerts.merge(vec![
        alert("web", 1, Severity::Critical),
        alert("web", 2, Severity::High),
        alert("miner", 3, Severity::High),
    ]);
    press(&mut app, &[KeyCode::Tab, KeyCode::End]);
    assert_eq!(app.alerts_at.selected(), Some(2));
    press(&mut app, &[KeyCode::Enter]);
    assert_eq!(app.alert.as_deref(), Some("incident-1"), "newest first");
    press(&mut app, &[KeyCode::PageDown, KeyCode::Up, KeyCode::Esc]);
    assert_eq!((app.alert.as_deref(), app.evidence_at), (None, 9));
    press(&mut app, &[KeyCode::BackTab, KeyCode::Home, KeyCode::Enter]);
    app.take_belongings("web", Some(belongings()));
    press(&mut app, &[KeyCode::Down, KeyCode::PageDown]);
    assert_eq!(app.flows_at.selected(), Some(1));
    press(&mut app, &[KeyCode::Tab, KeyCode::PageDown, KeyCode::Up]);
    assert_eq!(app.processes_at.selected(), Some(0));
    press(&mut app, &[KeyCode::Tab]);
    assert_eq!((app.focus, app.shown_alerts().len()), (Focus::Alerts, 2));
    press(&mut app, &[KeyCode::Tab]);
    assert_eq!(app.focus, Focus::First);
}

#[test]
fn a_later_revision_takes_an_alerts_place_and_an_earlier_one_does_not() {
    let mut app = app();
    let mut grown = alert("web", 1, Severity::Critical);
    grown.alert.revision = 2;
    grown.time = "2026-01-31T13:00:00.000000000Z".into();
    app.alerts.merge(vec![
        alert("web", 1, Severity::High),
        alert("web", 5, Severity::Low),
    ]);
    app.alerts.merge(vec![grown]);
    app.alerts.merge(vec![alert("web", 1, Severity::High)]);
    let shown = app.shown_alerts();
    let shown: Vec<_> = shown
        .iter()
        .map(|it| (&*it.alert.incident, it.alert.revision))
        .collect();
    assert_eq!(shown, [("incident-1", 2), ("incident-5", 1)]);
}

#[test]
fn alerts_of_agents_that_were_not_asked_for_are_left_out() {
    let pattern = AgentPattern::parse("agent-web").expect("a pattern");
    let mut app = App::new(vec![pattern]);
    let both = vec![
        alert("web", 1, Severity::High),
        alert("miner", 2, Severity::High),
    ];
    app.take_alerts(both);
    assert_eq!(app.shown_alerts().len(), 1);
}

#[test]
fn alerts_of_agents_that_were_not_asked_for_drive_no_other_out() {
    let pattern = AgentPattern::parse("agent-web").expect("a pattern");
    let mut app = App::new(vec![pattern]);
    app.take_alerts(vec![alert("web", 1, Severity::High)]);
    let many = (2..2 + MOST as u32).map(|n| alert("miner", n, Severity::High));
    app.take_alerts(many.collect());
    let shown = app.shown_alerts();
    let shown: Vec<_> = shown.iter().map(|it| &*it.alert.incident).collect();
    assert_eq!(shown, ["incident-1"]);
}

#[test]
fn without_an_answer_what_was_known_stays_but_for_rates() {
    let mut app = app();
    app.fail("no agent-monitor listens".into());
    assert_eq!(names(&app).len(), 3);
    assert_eq!(
        (app.overview.events, app.overview.rows[0].connects),
        (None, None)
    );
    let [before, now] = busy();
    app.take(now.clone());
    assert!(app.trouble.is_none());
    assert_eq!(
        app.overview.events, None,
        "no rate over the time without an answer"
    );
    app.fail("again".into());
    app.take(before);
    app.take(now);
    assert_eq!(app.overview.events, Some(1_000.0));
}
