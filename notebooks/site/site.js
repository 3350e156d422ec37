// Search buttons show "Search Ctrl + K" and are called "Search", folded cells show "Show code cell
// source" and are called "Toggle hidden content": who speaks to a browser says what is shown.
addEventListener("DOMContentLoaded", () => {
  for (const named of document.querySelectorAll(".search-button-field, details.hide > summary")) {
    named.removeAttribute("aria-label");
  }
});
