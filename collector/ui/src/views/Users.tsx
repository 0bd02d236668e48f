/** Who may do what. */
import { useState } from "preact/hooks";
import { tell } from "../api/ask";
import type { User } from "../api/types";
import { Answered, Editor, type Field, RecordButtons, idList, useChange } from "../parts/Records";
import { useAnswer } from "../parts/useAnswer";
import { Note, regionChoices, regionNames } from "../parts/bits";
import { format, t } from "../words";

const PATH = "/api/v1/users";

export default function Users() {
  const words = t();
  const answer = useAnswer<{ users: User[] }>(PATH);
  const change = useChange(answer.again);
  const [open, setOpen] = useState<User | "new" | null>(null);
  const fields = (isNew: boolean): Field[] => [
    { name: "name", label: words.name, fixed: true },
    { name: "role", label: words.role, choices: Object.entries(words.roles) },
    { name: "password", label: isNew ? words.password : words.newPassword, kind: "password", optional: !isNew },
    { name: "regions", label: words.regionsAllowed, several: regionChoices() },
  ];
  const send = (method: "POST" | "PATCH", path: string, values: Record<string, string>) => {
    const { name, role, password } = values;
    const body = { ...(method === "POST" ? { name } : {}), role, regions: idList(values["regions"] ?? ""), ...(password ? { password } : {}) };
    void change.run(() => tell(method, path, body)).then((done) => done && setOpen(null));
  };
  return (
    <section class="panel">
      <h1>{words.views.users}</h1>
      <Answered answer={answer}>
        {({ users }) => (
          <>
            {open === null && <p class="actions"><button type="button" class="choice" onClick={() => setOpen("new")}>{words.addUser}</button></p>}
            {open === "new" && <Editor key="new" heading={words.addUser} fields={fields(true)} isNew busy={change.busy} submit={(values) => send("POST", PATH, values)} cancel={() => setOpen(null)} />}
            {open !== null && open !== "new" && <Editor key={open.name} heading={words.editOf(open.name)} fields={fields(false)} values={{ name: open.name, role: open.role, regions: open.regions?.join(",") ?? "" }} isNew={false} busy={change.busy} submit={(values) => send("PATCH", path(open.name), values)} cancel={() => setOpen(null)} />}
            {change.said}
            {users.length === 0 ? <Note>{words.noUsers}</Note> : (
              <div class="table-scroll" tabIndex={0} role="group" aria-label={words.views.users}>
                <table>
                  <thead><tr><th scope="col">{words.name}</th><th scope="col">{words.role}</th><th scope="col">{words.kinds.regions}</th><th scope="col">{words.created}</th><th scope="col">{words.lastLogin}</th><th scope="col"><span class="skip">{words.edit}</span></th></tr></thead>
                  <tbody>
                    {users.map((user) => (
                      <tr key={user.name}>
                        <th scope="row">{user.name}</th>
                        <td>{words.roles[user.role] ?? user.role}</td>
                        <td>{regionNames(user.regions)}</td>
                        <td>{format.full(user.created_ms)}</td>
                        <td>{user.last_login_ms === null ? words.never : format.full(user.last_login_ms)}</td>
                        <td><RecordButtons name={user.name} busy={change.busy} edit={() => setOpen(user)} remove={() => void change.run(() => tell("DELETE", path(user.name)))} /></td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            )}
          </>
        )}
      </Answered>
    </section>
  );
}

function path(name: string): string {
  return `${PATH}/${encodeURIComponent(name)}`;
}
