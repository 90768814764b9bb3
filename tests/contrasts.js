// The contrast of every visible text of a page with what lies behind it, from 1 to 21, and the text.
// Source: WCAG 2.2, "contrast ratio" and "relative luminance".
() => {
  const parse = (colour) => {
    const [r, g, b, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
    return { rgb: [r, g, b], alpha };
  };
  const over = ({ rgb, alpha }, below) => rgb.map((value, i) => value * alpha + below[i] * (1 - alpha));
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility()) continue;
    const styles = [];
    for (let node = element; node; node = node.parentElement) styles.push(getComputedStyle(node));
    const behind = styles.reduceRight((below, style) => over(parse(style.backgroundColor), below), [255, 255, 255]);
    const ink = parse(element.closest("svg") ? styles[0].fill : styles[0].color);
    ink.alpha *= styles.reduce((opacity, style) => opacity * style.opacity, 1);
    const [dark, light] = [luminance(over(ink, behind)), luminance(behind)].sort((a, b) => a - b);
    texts.push([(light + 0.05) / (dark + 0.05), text]);
  }
  return texts;
}
