/** The inventory, users, tokens and the audit, as an administrator uses them and as the other roles see them. */
import { readFile } from "node:fs/promises";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Collector, TOKEN, eventually, freePort, launch, open, signIn, visit } from "./lab";

let browser: Browser;
let collector: Collector;
let admin: Page;

beforeAll(async () => {
  collector = new Collector(await freePort());
  await collector.start();
  browser = await launch();
  admin = (await open(browser, collector.port, "/inventory")).page;
});

afterAll(async () => {
  await browser?.close();
  await collector?.stop();
});

/** A field of the form that is open, by its label. */
function field(page: Page, label: string) {
  return page.locator(`.editor label:has(> span:text-is("${label}"))`).locator("input, select");
}

/** Fills the form that is open, and sends it. */
async function fill(page: Page, values: Record<string, string>, button: string): Promise<void> {
  for (const [label, value] of Object.entries(values)) {
    const one = field(page, label);
    if ((await one.evaluate((node) => node.tagName)) === "SELECT") await one.selectOption(value);
    else await one.fill(value);
  }
  await page.locator(".editor").getByRole("button", { name: button }).click();
}

async function saved(page: Page): Promise<void> {
  await page.locator(".good-news").waitFor();
}

function record(page: Page, name: string) {
  return page.locator(".record", { has: page.getByRole("link", { name, exact: true }) });
}

async function has(path: string): Promise<boolean> {
  return (await fetch(`http://127.0.0.1:${collector.port}${path}`, { headers: { authorization: `Bearer ${TOKEN}` } })).ok;
}

test("a region, its branch and its device are added, changed and taken away", async () => {
  await visit(admin, "/inventory?kind=regions");
  await admin.getByRole("button", { name: "Add a region" }).click();
  await fill(admin, { Id: "racha", Name: "Racha" }, "Add");
  await record(admin, "Racha").waitFor();

  await visit(admin, "/inventory?kind=branches");
  await admin.getByRole("button", { name: "Add a branch" }).click();
  await fill(admin, { Id: "utsera", Name: "Utsera", Region: "racha" }, "Add");
  await admin.getByRole("searchbox").fill("utsera");
  await record(admin, "Utsera").waitFor();

  await visit(admin, "/inventory");
  await admin.getByRole("button", { name: "Add a device" }).click();
  await fill(admin, { Id: "utsera-atm-1", Name: "Utsera ATM 1", Branch: "utsera", Type: "atm", Address: "127.30.0.300" }, "Add");
  expect(await admin.locator(".problem").textContent()).toContain("ip");
  await fill(admin, { Address: "127.30.0.3" }, "Add");
  await saved(admin);
  // The form is empty for the next one.
  expect(await field(admin, "Id").inputValue()).toBe("");
  await admin.keyboard.press("Escape");
  await admin.getByRole("searchbox").fill("utsera atm");
  await record(admin, "Utsera ATM 1").waitFor();
  expect(await admin.locator(".record").count()).toBe(1);

  await record(admin, "Utsera ATM 1").getByRole("button", { name: "Edit" }).click();
  expect(await field(admin, "Id").isDisabled()).toBe(true);
  await fill(admin, { Name: "Utsera ATM 2", Address: "127.30.0.4" }, "Save");
  await record(admin, "Utsera ATM 2").waitFor();
  expect(((await collector.json("/api/v1/devices/utsera-atm-1")) as { ip: string }).ip).toBe("127.30.0.4");

  // A branch with devices stays, and the page says why.
  await visit(admin, "/inventory?kind=branches&q=utsera");
  await record(admin, "Utsera").getByRole("button", { name: "Remove" }).click();
  await record(admin, "Utsera").getByRole("button", { name: "Remove for good?" }).click();
  await admin.locator(".problem", { hasText: "device" }).waitFor();
  expect(await record(admin, "Utsera").count()).toBe(1);
});

test("a branch whose agent doesn't have its config is named: in the inventory, among the agents and on its own page", async () => {
  await visit(admin, "/inventory");
  const pending = admin.locator(".pending");
  await pending.locator("summary", { hasText: "1 agent without the newest config" }).waitFor({ timeout: 45_000 });
  await pending.locator("summary").click();
  await pending.getByRole("link", { name: "Utsera" }).click();
  await admin.waitForURL(/\/branches\/utsera$/);
  await admin.getByText(/that of .* is on its way/).waitFor();
});

test("an import is tried first, each mistake is named by its line, and then it is taken", async () => {
  await visit(admin, "/inventory");
  await admin.locator(".import summary").first().click();
  const file = (rows: string[]) => ({ name: "estate.csv", mimeType: "text/csv", buffer: Buffer.from(["device_id,device_name,branch,branch_name,region,region_name,device_type,ip", ...rows].join("\n")) });
  const good = "utsera-router-1,Utsera Router 1,utsera,Utsera,racha,Racha,router,127.30.0.5";
  const apply = admin.getByRole("button", { name: "Import it" });
  await admin.locator("input[type=file]").setInputFiles(file([good, "utsera-nvr-1,Utsera NVR 1,utsera,Utsera,racha,Racha,nvr,127.30.0.999"]));
  expect(await apply.isDisabled()).toBe(true);
  await admin.getByRole("button", { name: "Try it" }).click();
  const mistake = admin.locator(".import-outcome tbody tr");
  await mistake.waitFor();
  expect(await mistake.locator("td").allTextContents()).toEqual(["3", "ip", expect.stringContaining("127.30.0.999")]);
  expect(await apply.isDisabled()).toBe(true);
  expect(await has("/api/v1/devices/utsera-router-1")).toBe(false);

  await admin.locator("input[type=file]").setInputFiles(file([good, "mestia-router-1,Mestia Router 1,mestia,Mestia,svaneti,Svaneti,router,127.30.0.6"]));
  await admin.getByRole("button", { name: "Try it" }).click();
  await admin.getByText("Nothing is changed yet.").waitFor();
  expect(await has("/api/v1/devices/utsera-router-1")).toBe(false);
  await apply.click();
  await admin.getByText("Imported.").waitFor();
  expect(await has("/api/v1/devices/utsera-router-1")).toBe(true);
  // The feed tells of no regions, and the list of them has the new one all the same.
  await admin.getByRole("button", { name: "Regions", exact: true }).click();
  await record(admin, "Svaneti").waitFor();
  // What the file doesn't name goes only where that was asked for, and the dry run says what.
  expect(await has("/api/v1/devices/utsera-atm-1")).toBe(true);
  await admin.getByLabel("Remove devices that the file does not name").check();
  expect(await apply.isDisabled()).toBe(true);
  await admin.getByRole("button", { name: "Try it" }).click();
  await admin.locator(".import-outcome summary", { hasText: "Removed: 876" }).waitFor();

  const [download] = await Promise.all([admin.waitForEvent("download"), admin.getByRole("link", { name: "Export as CSV" }).click()]);
  expect(await readFile(await download.path(), "utf8")).toContain("utsera-router-1,Utsera Router 1,utsera,Utsera,racha,Racha,router,127.30.0.5");
});

const PASSWORD = "a long enough password";

test("users are added and changed", async () => {
  await visit(admin, "/users");
  await admin.getByText("There are no users yet").waitFor();
  for (const [name, role] of [["nino", "viewer"], ["gela", "technician"], ["maia", "regional_manager"]] as const) {
    await admin.getByRole("button", { name: "Add a user" }).click();
    if (role === "regional_manager") await admin.locator(".editor").getByLabel("Guria").check();
    await fill(admin, { Name: name, Role: role, Password: PASSWORD }, "Add");
    await admin.getByRole("row", { name: new RegExp(name) }).waitFor();
  }
  expect(await admin.getByRole("row", { name: /maia/ }).textContent()).toContain("Guria");
  await admin.getByRole("button", { name: "Edit: gela" }).click();
  await admin.locator(".editor").getByLabel("Achara").check();
  await fill(admin, {}, "Save");
  await eventually("the region is shown", async () => (await admin.getByRole("row", { name: /gela/ }).textContent())?.includes("Achara"));
  await admin.getByRole("button", { name: "Edit: gela" }).click();
  await admin.locator(".editor").getByLabel("Achara").uncheck();
  await fill(admin, {}, "Save");
  await eventually("it is all regions again", async () => (await admin.getByRole("row", { name: /gela/ }).textContent())?.includes("all"));
  // What can't be is refused in words, and the form keeps what was typed.
  await admin.getByRole("button", { name: "Add a user" }).click();
  await fill(admin, { Name: "nino", Role: "viewer", Password: PASSWORD }, "Add");
  await admin.locator(".problem").waitFor();
  expect(await field(admin, "Name").inputValue()).toBe("nino");
});

/** What a role is offered, view by view. */
const OFFERED = {
  nino: { views: 6, devices: [], branches: [], regions: [], device: [] },
  gela: { views: 6, devices: ["Export as CSV", "Add a device", "Edit"], branches: ["Export as CSV"], regions: ["Export as CSV"], device: ["Probe now"] },
  maia: { views: 6, devices: ["Export as CSV", "Import a CSV", "Add a device", "Edit"], branches: ["Export as CSV", "Import a CSV", "Add a branch", "Edit"], regions: ["Export as CSV", "Import a CSV"], device: ["Probe now"] },
} as const;

test.each(["nino", "gela", "maia"] as const)("%s is offered what the role may, and nothing that is refused", async (name) => {
  const { page } = await signIn(browser, collector.port, name, PASSWORD);
  const refused: string[] = [];
  page.on("response", (response) => [401, 403].includes(response.status()) && refused.push(`${response.status()} ${response.url()}`));
  const { views, ...offered } = OFFERED[name];
  expect(await page.locator(".views a").count()).toBe(views);
  const every = ["Export as CSV", "Import a CSV", "Add a device", "Add a branch", "Add a region", "Edit", "Probe now"];
  for (const [kind, wanted] of Object.entries(offered)) {
    await visit(page, kind === "device" ? "/devices/ozurgeti-router-1" : `/inventory?kind=${kind}`);
    await page.locator(kind === "device" ? ".chart canvas, .readout, .none" : ".record").first().waitFor();
    const shown = [];
    for (const words of every) if ((await page.locator("main").getByText(words, { exact: true }).count()) > 0) shown.push(words);
    expect(shown, kind).toEqual(wanted);
  }
  if (name === "maia") {
    // Her region and nothing else.
    expect(await page.locator(".count.total b").textContent()).toBe("28");
    await visit(page, "/dashboard");
    await eventually("one region", async () => (await page.locator(".dash section:first-child tbody tr").count()) === 1);
  }
  expect(refused).toEqual([]);
  await visit(page, "/users");
  await page.getByText("Your role doesn't allow this.").waitFor();
  await page.context().close();
});

test("somebody changes their own password, and comes in by that one", async () => {
  const { page } = await signIn(browser, collector.port, "nino", PASSWORD);
  await page.locator(".settings > summary").click();
  await page.getByText("Change my password").click();
  await page.getByLabel("Password so far").fill("not this one at all");
  await page.getByLabel("Password", { exact: true }).fill("another long password");
  await page.locator(".settings .form button").click();
  await page.locator(".settings .problem").waitFor();
  await page.getByLabel("Password so far").fill(PASSWORD);
  await page.locator(".settings .form button").click();
  await page.waitForURL(/\/login$/);
  await page.context().close();
  const again = await signIn(browser, collector.port, "nino", "another long password");
  await again.page.context().close();
});

test("who signs in anew in another tab goes on in the first", async () => {
  const { page } = await signIn(browser, collector.port, "gela", PASSWORD);
  await visit(page, "/devices/ozurgeti-router-1");
  await page.getByRole("button", { name: "Plan maintenance" }).click();
  const other = await page.context().newPage();
  await other.goto(`http://127.0.0.1:${collector.port}/login`);
  await other.locator("#name").fill("gela");
  await other.locator("#password").fill(PASSWORD);
  await other.locator("#password").press("Enter");
  await other.waitForSelector('html[data-link="live"]');
  await page.locator(".editor").getByRole("button", { name: "Add" }).click();
  await page.locator(".good-news").waitFor();
  await page.context().close();
});

test("a token is told once, is taken, and is taken no longer", async () => {
  await visit(admin, "/tokens");
  await admin.getByRole("button", { name: "Make a token" }).click();
  await fill(admin, { Name: "grafana", Role: "viewer", "Expires after days (empty: never)": "30" }, "Add");
  const secret = (await admin.locator(".secret").textContent()) ?? "";
  const status = async () => (await fetch(`http://127.0.0.1:${collector.port}/api/v1/me`, { headers: { authorization: `Bearer ${secret}` } })).status;
  expect(await status()).toBe(200);
  await admin.reload();
  const row = admin.getByRole("row", { name: /grafana/ });
  await row.waitFor();
  expect(await admin.locator(".secret").count()).toBe(0);
  await row.getByRole("button", { name: "Remove: grafana" }).click();
  await row.getByRole("button", { name: "Cancel" }).click();
  expect(await status()).toBe(200);
  await row.getByRole("button", { name: "Remove: grafana" }).click();
  await row.getByRole("button", { name: "Remove for good?" }).click();
  await eventually("it is taken no longer", async () => (await status()) === 401);
});

test("the audit tells in words who did what, newest first", async () => {
  await visit(admin, "/audit");
  await admin.getByRole("cell", { name: "took a token back" }).waitFor();
  const actions = await admin.locator("tbody td:nth-child(3)").allTextContents();
  expect(actions[0]).toBe("took a token back");
  expect(actions.indexOf("added a user")).toBeLessThan(actions.indexOf("imported an inventory"));
  expect(actions.indexOf("imported an inventory")).toBeLessThan(actions.lastIndexOf("added a region"));
  expect(await admin.getByRole("row", { name: /changed a device/ }).first().textContent()).toContain("name: Utsera ATM 2");
});

test("what was added is taken away again", async () => {
  const devices = [["devices", "utsera-router-1", "Utsera Router 1"], ["devices", "utsera-atm-1", "Utsera ATM 2"], ["devices", "mestia-router-1", "Mestia Router 1"]] as const;
  const places = [["branches", "utsera", "Utsera"], ["branches", "mestia", "Mestia"], ["regions", "racha", "Racha"], ["regions", "svaneti", "Svaneti"]] as const;
  for (const [kind, id, name] of [...devices, ...places]) {
    await visit(admin, `/inventory?kind=${kind}${kind === "regions" ? "" : `&q=${name.split(" ")[0]?.toLowerCase()}`}`);
    await record(admin, name).getByRole("button", { name: "Remove" }).click();
    await record(admin, name).getByRole("button", { name: "Remove for good?" }).click();
    await eventually(`${name} is gone`, async () => (await record(admin, name).count()) === 0);
    expect(await has(`/api/v1/${kind}/${id}`), id).toBe(false);
  }
});
