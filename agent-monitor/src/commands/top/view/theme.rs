//! Colours, or what stands for them where there are none.

use ratatui::style::{Color, Style};

use crate::event::Severity;

/// Whether there are colours.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    has_color: bool,
}

impl Theme {
    /// With or without colours.
    pub fn new(has_color: bool) -> Self {
        Self { has_color }
    }

    /// Colours, unless the variable NO_COLOR is there and not empty (no-color.org).
    pub fn of_environment() -> Self {
        let no_color = std::env::var_os("NO_COLOR");
        Self::new(no_color.is_none_or(|it| it.is_empty()))
    }

    fn color(self, color: Color) -> Style {
        match self.has_color {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    /// Ordinary text.
    pub fn plain(self) -> Style {
        Style::new()
    }

    /// What a line is about.
    pub fn strong(self) -> Style {
        Style::new().bold()
    }

    /// What is of less interest. No colour: dark grey is the background of some terminals.
    pub fn quiet(self) -> Style {
        Style::new().dim()
    }

    /// The name of the list that has the keyboard.
    pub fn title(self) -> Style {
        self.color(Color::Cyan).bold()
    }

    /// Headings of a table.
    pub fn head(self) -> Style {
        self.color(Color::Cyan)
    }

    /// The heading that a table is sorted by.
    pub fn sorted(self) -> Style {
        self.head().bold().underlined()
    }

    /// The line that is chosen.
    pub fn chosen(self) -> Style {
        Style::new().reversed()
    }

    /// All is well.
    pub fn good(self) -> Style {
        self.color(Color::Green)
    }

    /// Somebody should look.
    pub fn warning(self) -> Style {
        self.color(Color::Yellow).bold()
    }

    /// Something is wrong.
    pub fn bad(self) -> Style {
        self.color(Color::Red).bold()
    }

    /// How bad an alert is.
    pub fn severity(self, severity: Option<Severity>) -> Style {
        match severity {
            Some(Severity::Critical) => self.bad().reversed(),
            Some(Severity::High) => self.bad(),
            Some(Severity::Medium) => self.warning(),
            Some(Severity::Low) => self.color(Color::Yellow),
            Some(Severity::Info) | None => self.plain(),
        }
    }
}
