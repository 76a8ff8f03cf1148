// Opens the status page as its readers do, and says what it saw as JSON.
//
//     node page.js URL BROWSER DIRECTORY
//
// Screenshots are left in DIRECTORY.  Needs playwright-core and axe-core (npm), found through NODE_PATH.
"use strict";

const fs = require("fs");
const { chromium } = require("playwright-core");

const [url, executablePath, directory] = process.argv.slice(2);
// The page's policy allows no script tag: axe is evaluated instead.
const axe = fs.readFileSync(require.resolve("axe-core"), "utf8");
const VIEWS = [
  ["light", "light", 1200],
  ["dark", "dark", 1200],
  ["phone", "light", 390],
];

async function look(browser, [name, colorScheme, width]) {
  const context = await browser.newContext({ colorScheme, viewport: { width, height: 900 } });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => complaints.push(`dialog: ${dialog.message()}`) && dialog.dismiss());
  await page.goto(url);
  await page.screenshot({ path: `${directory}/${name}.png`, fullPage: true });
  const renewed = page.waitForResponse((answer) => answer.url() === url);
  await page.evaluate(axe);
  const violations = await page.evaluate(async () => (await axe.run()).violations.map((one) => one.id));
  const sideways = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
  const open = await page.textContent("#sessions figcaption b");
  const status = (await renewed).status();
  await context.close();
  return { name, complaints, violations, sideways, open, renewed: status };
}

(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const seen = [];
  for (const view of VIEWS) seen.push(await look(browser, view));
  await browser.close();
  console.log(JSON.stringify(seen));
})();
