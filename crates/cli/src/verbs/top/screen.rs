//! The terminal, taken as a whole and given back as it was.

use std::io;

use ratatui::{DefaultTerminal, Frame};

/// A terminal that is given back when this goes, and before a panic is told.
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    pub fn take() -> io::Result<Screen> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(error) => {
                drop(ratatui::try_restore());
                Err(error)
            }
        }
    }

    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // One that is gone cannot be given back.
        drop(ratatui::try_restore());
    }
}
