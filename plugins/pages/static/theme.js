// Before anything is painted: dark or light as Airflow has it, in whose UI this page is a frame.
(() => {
  const root = document.documentElement;

  const airflow = () => {
    try {
      return window.parent === window ? null : window.parent.document.documentElement;
    } catch {
      return null; // Framed by another site's page: none of its business.
    }
  };

  // Airflow marks its <html> with the class dark or light, and keeps the choice under this key.
  const theme = () => {
    const shown = airflow()?.classList;
    if (shown?.contains("dark")) return "dark";
    if (shown?.contains("light")) return "light";
    return localStorage.getItem("theme");
  };

  const follow = () => {
    const wanted = theme();
    if (wanted === "dark" || wanted === "light") root.dataset.theme = wanted;
    else delete root.dataset.theme;
    document.dispatchEvent(new Event("themechange"));
  };

  follow();
  const frame = airflow();
  if (frame) new MutationObserver(follow).observe(frame, { attributeFilter: ["class"] });
  window.addEventListener("storage", follow);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", follow);
})();
