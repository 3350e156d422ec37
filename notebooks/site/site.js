// The theme's search buttons show "Search Ctrl + K" and are called "Search": who speaks to a browser
// says what is shown.
addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll(".search-button-field")) {
    button.removeAttribute("aria-label");
  }
});
