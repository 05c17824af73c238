//! The terminal, taken as a whole and given back as it was.

use std::io;

use ratatui::{DefaultTerminal, Frame, crossterm::terminal::is_raw_mode_enabled};

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
        // A panic has given it back already: once more would put the cursor above what was told.
        if is_raw_mode_enabled().unwrap_or(true) {
            // One that is gone cannot be given back.
            drop(ratatui::try_restore());
        }
    }
}
