// Runs before the page is painted, so that it never flashes in the wrong colours.
{
  let theme = null;
  try {
    theme = localStorage.getItem("acclimate-theme");
  } catch {
    // The browser keeps nothing for us: the system's colours it is.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
