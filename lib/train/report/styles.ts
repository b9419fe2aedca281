/** Styles of pages about training runs. */
import { RUN_COLOURS } from './charts.js';

const COLOURS = ['#d97a10', '#3d6fb8', '#0f766e', '#b0417a', '#6b5fc7', '#7a7f36'];
/** What pages about runs add to the reports' style sheet. */
export const RUN_STYLES = `
:root { ${COLOURS.slice(0, RUN_COLOURS)
  .map((colour, index) => `--run-${String(index)}: ${colour};`)
  .join(' ')} }
.runs { list-style: none; display: flex; flex-wrap: wrap; gap: 6px 22px; padding: 0; margin: 0 0 14px; font-size: 14px; }
.runs i { display: inline-block; width: 18px; height: 4px; border-radius: 2px; margin-right: 8px; vertical-align: middle; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(240px, 100%), 1fr)); gap: 18px; }
.samples figure { margin: 0; } .samples img { width: 100%; border-radius: 8px; image-rendering: pixelated; display: block; }
.samples figcaption { font-size: 14px; padding-top: 6px; }
.meter i { position: relative; overflow: visible; }
.meter u { position: absolute; top: 3px; width: 6px; height: 6px; margin-left: -3px; border-radius: 50%; background: var(--ink); opacity: .55; }
.runs-table { overflow-x: auto; }
`;
