//! The table of agents.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};

use super::{Theme, said, text, to_the_right};
use crate::commands::top::app::{App, Focus, Sort};
use crate::commands::top::columns::{Column, fitting};
use crate::commands::top::rates::Row as Agent;

/// Draws it, with the chosen agent in sight.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, theme: Theme) {
    let columns = fitting(area.width);
    let agents = app.rows();
    if agents.is_empty() {
        let nobody = match (app.overview.status.agents.is_empty(), app.filter.is_empty()) {
            (true, _) => "no agents yet",
            (false, true) => "no agent that --agent matches",
            (false, false) => "no agent whose name contains the filter",
        };
        frame.render_widget(Paragraph::new(Span::styled(nobody, theme.quiet())), area);
        return;
    }
    let rows: Vec<Row<'_>> = agents
        .iter()
        .map(|agent| {
            let cells = columns.iter().map(|(column, width)| {
                let text = shown(*column, agent, *width);
                Line::from(Span::styled(text, style(*column, agent, theme)))
            });
            Row::new(cells)
        })
        .collect();
    let sort = app.sort;
    let head = columns.iter().map(|(column, width)| {
        let style = match sort.column == *column {
            true => theme.sorted(),
            false => theme.head(),
        };
        Line::from(Span::styled(heading(*column, sort, *width), style))
    });
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
    let mut table = Table::new(rows, widths).header(Row::new(head));
    if app.focus == Focus::First {
        table = table.row_highlight_style(theme.chosen());
    }
    frame.render_stateful_widget(table, area, &mut app.agents_at);
}

fn heading(column: Column, sort: Sort, width: u16) -> String {
    let title = match (sort.column == column, sort.reversed) {
        (false, _) => column.title().to_owned(),
        (true, false) => format!("{}▾", column.title()),
        (true, true) => format!("{}▴", column.title()),
    };
    match column.is_number() {
        true => to_the_right(&title, width),
        false => text::column(&title, width.into()),
    }
}

fn shown(column: Column, agent: &Agent, width: u16) -> String {
    let text = said(&column.text(agent));
    match column.is_number() {
        true => to_the_right(&text, width),
        false => text::column(&text, width.into()),
    }
}

fn style(column: Column, agent: &Agent, theme: Theme) -> ratatui::style::Style {
    match column {
        Column::Agent if !agent.covered => theme.warning(),
        Column::Agent => theme.strong(),
        Column::Alerts => theme.severity(agent.worst().map(|(severity, _)| severity)),
        Column::Lost if agent.lost > 0 => theme.bad(),
        _ => theme.plain(),
    }
}
