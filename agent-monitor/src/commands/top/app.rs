//! What is shown, and what keys do to it. No I/O.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::widgets::TableState;

use super::columns::Column;
use super::look::{Alert, Alerts, Belongings, Named, Sample};
use super::rates::{Overview, Row, compare};
use crate::api::query::AgentPattern;

/// Characters of what agents are filtered by.
const MAX_FILTER: usize = 64;

/// What is to be done after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Show what changed.
    Show,
    /// Ask at once what the opened agent has.
    Ask,
    /// Give the terminal back until told to go on.
    Suspend,
    /// End.
    Quit,
}

/// A list that has the keyboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Focus {
    /// Agents, or an agent's flows.
    #[default]
    First,
    /// An agent's processes.
    Processes,
    /// Alerts.
    Alerts,
}

/// An agent that was opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// Its id.
    pub id: String,
    /// Its row, the last one if it is gone.
    pub row: Row,
    /// What it has, once that is known.
    pub has: Option<Belongings>,
    /// It is there no more.
    pub gone: bool,
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub struct App {
    patterns: Vec<AgentPattern>,
    before: Option<Sample>,
    /// The daemon and its agents.
    pub overview: Overview,
    /// Why the daemon does not answer, if it does not.
    pub trouble: Option<String>,
    /// How long the daemon has been asked without an answer.
    pub waiting: Duration,
    /// The latest alerts.
    pub alerts: Alerts,
    /// What the table is sorted by.
    pub sort: Sort,
    /// Part of the names of agents that are shown.
    pub filter: String,
    /// Whether keys go to the filter.
    pub typing: bool,
    /// Whether the keys are explained.
    pub help: bool,
    /// The list that has the keyboard.
    pub focus: Focus,
    /// The agent that was opened.
    pub opened: Option<Opened>,
    /// The incident of the alert that was opened.
    pub alert: Option<String>,
    /// The id of the agent that is chosen.
    chosen: Option<String>,
    /// The place in each list, and how far it is scrolled.
    pub agents_at: TableState,
    pub flows_at: TableState,
    pub processes_at: TableState,
    pub alerts_at: TableState,
    /// How far the opened alert is scrolled.
    pub evidence_at: u16,
}

/// What a table is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// The column.
    pub column: Column,
    /// Least first.
    pub reversed: bool,
}

impl Default for Sort {
    fn default() -> Self {
        Self {
            column: Column::Alerts,
            reversed: false,
        }
    }
}

impl App {
    /// Shows the agents that a pattern matches; all if there is none.
    pub fn new(patterns: Vec<AgentPattern>) -> Self {
        Self {
            patterns,
            ..Self::default()
        }
    }

    /// Takes in what the daemon said.
    pub fn take(&mut self, sample: Sample) {
        self.trouble = None;
        self.overview = compare(self.before.as_ref(), &sample, &self.patterns);
        self.before = Some(sample);
        self.arrange();
        if let Some(opened) = &mut self.opened {
            let row = self.overview.rows.iter().find(|row| row.id == opened.id);
            opened.gone = row.is_none();
            if let Some(row) = row {
                opened.row = row.clone();
            }
        }
    }

    /// Takes in alerts: those of other agents than were asked for take no room.
    pub fn take_alerts(&mut self, mut alerts: Vec<Alert>) {
        alerts.retain(|alert| self.wants(&alert.agent));
        self.alerts.merge(alerts);
    }

    /// Takes in what an agent has, if it is still the one that is shown.
    pub fn take_belongings(&mut self, agent: &str, has: Option<Belongings>) {
        let opened = self.opened.as_mut().filter(|opened| opened.id == agent);
        if let Some(opened) = opened {
            opened.gone = has.is_none();
            if has.is_some() {
                opened.has = has;
            }
        }
    }

    /// The daemon does not answer: what was known stays, without a rate that spans the gap.
    pub fn fail(&mut self, why: String) {
        self.trouble = Some(why);
        self.before = None;
        self.overview.forget_rates();
    }

    /// Whether an alert is about an agent that was asked for.
    fn wants(&self, agent: &Named) -> bool {
        let names = [agent.name.as_str(), agent.id.as_str()];
        self.patterns.is_empty() || self.patterns.iter().any(|it| it.matches(names))
    }

    /// The rows that are shown, in their order.
    pub fn rows(&self) -> Vec<&Row> {
        let filter = self.filter.to_lowercase();
        let rows = self.overview.rows.iter();
        rows.filter(|row| row.name.to_lowercase().contains(&filter) || row.id.contains(&filter))
            .collect()
    }

    /// Sorts, and keeps the choice on its agent.
    fn arrange(&mut self) {
        let Sort { column, reversed } = self.sort;
        self.overview.rows.sort_by(|one, other| match reversed {
            false => column.order(one, other),
            true => column.order(other, one),
        });
        let rows = self.rows();
        let place = self.agents_at.selected().unwrap_or_default();
        let same = rows
            .iter()
            .position(|row| Some(&row.id) == self.chosen.as_ref());
        let place = same.unwrap_or_else(|| place.min(rows.len().saturating_sub(1)));
        let chosen = rows.get(place).map(|row| row.id.clone());
        self.agents_at.select(chosen.is_some().then_some(place));
        self.chosen = chosen;
    }

    /// What a key does.
    pub fn key(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Show;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Action::Quit,
                KeyCode::Char('z') => Action::Suspend,
                _ => Action::Show,
            };
        }
        if self.typing {
            self.type_filter(key.code);
            return Action::Show;
        }
        if self.help {
            self.help = false;
            return match key.code {
                KeyCode::Char('q') => Action::Quit,
                _ => Action::Show,
            };
        }
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.back(),
            KeyCode::Enter | KeyCode::Right => return self.open(),
            KeyCode::Tab => self.focus = self.next_focus(false),
            KeyCode::BackTab => self.focus = self.next_focus(true),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(10),
            KeyCode::PageUp => self.step(-10),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Char('s') => self.sort_by(self.sort.column.next(false)),
            KeyCode::Char('S') => self.sort_by(self.sort.column.next(true)),
            KeyCode::Char('r') => {
                self.sort.reversed = !self.sort.reversed;
                self.arrange();
            }
            KeyCode::Char('/') if self.opened.is_none() && self.alert.is_none() => {
                self.typing = true;
                self.focus = Focus::First;
            }
            _ => {}
        }
        Action::Show
    }

    fn sort_by(&mut self, column: Column) {
        self.sort = Sort {
            column,
            reversed: false,
        };
        self.arrange();
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.chars().count() < MAX_FILTER => self.filter.push(c),
            _ => {}
        }
        self.arrange();
    }

    fn back(&mut self) {
        if self.alert.take().is_some() {
            return;
        }
        if self.opened.take().is_some() {
            self.focus = Focus::First;
        } else {
            self.filter.clear();
            self.arrange();
        }
    }

    fn open(&mut self) -> Action {
        if self.alert.is_some() {
            return Action::Show;
        }
        if self.focus == Focus::Alerts {
            let place = self.alerts_at.selected().unwrap_or_default();
            let shown = self.shown_alerts();
            self.alert = shown.get(place).map(|it| it.alert.incident.clone());
            self.evidence_at = 0;
            return Action::Show;
        }
        if self.opened.is_some() {
            return Action::Show;
        }
        let row = self.rows().into_iter().cloned();
        let mut row = row.filter(|row| Some(&row.id) == self.chosen.as_ref());
        let Some(row) = row.next() else {
            return Action::Show;
        };
        self.opened = Some(Opened {
            id: row.id.clone(),
            row,
            ..Opened::default()
        });
        self.focus = Focus::First;
        self.flows_at = TableState::default();
        self.processes_at = TableState::default();
        self.alerts_at = TableState::default();
        Action::Ask
    }

    /// The alerts that are shown: of the opened agent, or of all that were asked for.
    pub fn shown_alerts(&self) -> Vec<&Alert> {
        match &self.opened {
            Some(opened) => self.alerts.of(|agent| agent.id == opened.id),
            None => self.alerts.of(|_| true),
        }
    }

    fn next_focus(&self, back: bool) -> Focus {
        match (self.focus, self.opened.is_some(), back) {
            (Focus::First, true, false) | (Focus::Alerts, true, true) => Focus::Processes,
            (Focus::First, ..) | (Focus::Processes, _, false) => Focus::Alerts,
            (Focus::Alerts, ..) | (Focus::Processes, _, true) => Focus::First,
        }
    }

    /// Moves in the list that has the keyboard.
    fn step(&mut self, by: isize) {
        if self.alert.is_some() {
            let by = by.clamp(-1_000, 1_000) as i16;
            self.evidence_at = self.evidence_at.saturating_add_signed(by);
            return;
        }
        let has = self.opened.as_ref().and_then(|opened| opened.has.as_ref());
        let flows = has.map_or(0, |has| has.flows.len());
        let processes = has.map_or(0, |has| has.processes.len());
        let (agents, alerts) = (self.rows().len(), self.shown_alerts().len());
        let (state, len) = match (self.focus, self.opened.is_some()) {
            (Focus::First, false) => (&mut self.agents_at, agents),
            (Focus::First, true) => (&mut self.flows_at, flows),
            (Focus::Processes, _) => (&mut self.processes_at, processes),
            (Focus::Alerts, _) => (&mut self.alerts_at, alerts),
        };
        let place = match (state.selected(), by) {
            (_, isize::MAX) => len,
            (None, _) => 0,
            (Some(place), by) => place.saturating_add_signed(by),
        };
        state.select((len > 0).then(|| place.min(len - 1)));
        if self.focus == Focus::First && self.opened.is_none() {
            let place = self.agents_at.selected();
            let row = place.and_then(|place| self.rows().get(place).copied());
            self.chosen = row.map(|row| row.id.clone());
        }
    }
}

#[cfg(test)]
mod tests;
