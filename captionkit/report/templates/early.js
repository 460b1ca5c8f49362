// Before the first paint: the chosen theme, and that there is a script at all.
document.documentElement.classList.add("js");
try {
  const theme = localStorage.getItem("captionkit-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // storage may be forbidden for local files
}
