// What a page must have for people who see little or nothing, or have no mouse. Returns what is wrong, a line each.
() => {
  const wrong = [];
  const visible = (node) => node.getClientRects().length > 0 && getComputedStyle(node).visibility !== "hidden";
  const told = (node) => `${node.tagName.toLowerCase()}${node.id ? `#${node.id}` : ""}.${node.getAttribute("class") ?? ""} "${node.textContent.trim().slice(0, 30)}"`;

  // Landmarks and headings.
  for (const tag of ["main", "header", "footer", "h1"]) {
    const found = document.querySelectorAll(`body ${tag}`).length;
    if (found !== 1) wrong.push(`${found} of ${tag}`);
  }
  let level = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    const own = Number(heading.tagName[1]);
    if (own > level + 1) wrong.push(`a heading skips a level: ${told(heading)}`);
    if (!heading.textContent.trim()) wrong.push(`an empty heading: ${told(heading)}`);
    level = own;
  }
  if (!document.documentElement.lang || !document.title) wrong.push("no language or no title");

  // Names and references.
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) wrong.push(`an id twice: ${id}`);
  for (const node of document.querySelectorAll("[aria-labelledby], [for], a[href^='#']")) {
    const id = node.getAttribute("aria-labelledby") ?? node.getAttribute("for") ?? node.getAttribute("href").slice(1);
    if (!document.getElementById(id)) wrong.push(`names nothing: ${told(node)} ${id}`);
  }
  for (const section of document.querySelectorAll("section")) {
    if (!section.getAttribute("aria-labelledby")) wrong.push(`a section without a name: ${told(section)}`);
  }
  for (const field of document.querySelectorAll("input, textarea, select")) {
    if (![...(field.labels ?? [])].some((label) => label.textContent.trim())) wrong.push(`a field without a label: ${told(field)}`);
  }
  for (const button of document.querySelectorAll("button, summary, a")) {
    if (!button.textContent.trim()) wrong.push(`nothing to read on ${told(button)}`);
  }
  for (const image of document.querySelectorAll("img")) if (image.getAttribute("alt") === null) wrong.push("an image without alt");
  for (const chart of document.querySelectorAll("svg")) {
    const hidden = chart.getAttribute("aria-hidden") === "true";
    const label = chart.getAttribute("aria-label") ?? "";
    if (!hidden && (chart.getAttribute("role") !== "img" || label.length < 10)) wrong.push(`a drawing without words: ${label}`);
  }
  for (const table of document.querySelectorAll("table")) {
    if (!table.caption || !table.querySelector("th[scope=col]")) wrong.push("a table without caption or heads");
  }

  // Contrast (WCAG 2.2, 1.4.3 and 1.4.11): text 4.5 to 1, drawn lines 3 to 1.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const ratio = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !visible(node) || ["SCRIPT", "STYLE", "NOSCRIPT", "title"].includes(node.tagName)) continue;
    if (node.closest(".hidden, .skip, button:disabled")) continue;
    const style = getComputedStyle(node);
    const colour = rgba(node instanceof SVGElement ? style.fill : style.color);
    const found = ratio(colour, behind(node));
    if (found < 4.5) wrong.push(`contrast ${found.toFixed(2)}: ${told(node)}`);
  }
  for (const line of document.querySelectorAll(".series, .spoke, .node, .cell.me, .cell.out")) {
    const style = getComputedStyle(line);
    const found = ratio(rgba(style.fill !== "none" && line.tagName !== "path" ? style.fill : style.stroke), behind(line));
    if (found < 3) wrong.push(`contrast of a line ${found.toFixed(2)}: ${line.getAttribute("class")}`);
  }
  return [...new Set(wrong)];
}
