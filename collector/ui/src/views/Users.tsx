/** Who may do what. */
import { useState } from "preact/hooks";
import { tell } from "../api/ask";
import { Answered, type Field, RecordForm, RemoveButton, idList, useChange } from "../parts/Records";
import { useAnswer } from "../parts/useAnswer";
import { format, t } from "../words";

interface User {
  name: string;
  role: string;
  regions: string[] | null;
  created_ms: number;
  last_login_ms: number | null;
}

const PATH = "/api/v1/users";

export default function Users() {
  const words = t();
  const answer = useAnswer<{ total: number; users: User[] }>(PATH);
  const change = useChange(answer.again);
  const [edited, setEdited] = useState<string | null>(null);
  const [turn, setTurn] = useState(0);
  const roles = Object.entries(words.roles);
  const fields = (isNew: boolean): Field[] => [
    { name: "name", label: words.name, fixed: true },
    { name: "role", label: words.role, choices: roles },
    { name: "regions", label: words.regionsAllowed, optional: true },
    { name: "password", label: isNew ? words.password : words.newPassword, kind: "password", optional: !isNew },
  ];
  const add = (values: Record<string, string>) =>
    void change.run(() => tell("POST", PATH, { name: values["name"], role: values["role"], regions: idList(values["regions"] ?? ""), password: values["password"] })).then((done) => done && setTurn(turn + 1));
  const save = (user: User, values: Record<string, string>) => {
    const password = values["password"] ? { password: values["password"] } : {};
    void change.run(() => tell("PATCH", path(user.name), { role: values["role"], regions: idList(values["regions"] ?? ""), ...password })).then((done) => done && setEdited(null));
  };
  return (
    <section class="panel">
      <h1>{words.views.users}</h1>
      {change.said}
      <Answered answer={answer}>
        {({ users }) => (
          <>
            <RecordForm key={turn} fields={fields(true)} isNew busy={change.busy} submit={add} />
            <div class="table-scroll" tabIndex={0} role="region" aria-label={words.views.users}>
              <table>
                <thead><tr><th scope="col">{words.name}</th><th scope="col">{words.role}</th><th scope="col">{words.region}</th><th scope="col">{words.created}</th><th scope="col">{words.lastLogin}</th><th scope="col"><span class="skip">{words.edit}</span></th></tr></thead>
                <tbody>
                  {users.map((user) =>
                    edited === user.name ? (
                      <tr key={user.name}><td colSpan={6}><RecordForm fields={fields(false)} values={{ name: user.name, role: user.role, regions: user.regions?.join(", ") ?? "" }} isNew={false} busy={change.busy} submit={(values) => save(user, values)} cancel={() => setEdited(null)} /></td></tr>
                    ) : (
                      <tr key={user.name}>
                        <th scope="row">{user.name}</th>
                        <td>{words.roles[user.role] ?? user.role}</td>
                        <td>{user.regions?.join(", ") ?? words.allOfThem}</td>
                        <td>{format.full(user.created_ms)}</td>
                        <td>{user.last_login_ms === null ? words.never : format.full(user.last_login_ms)}</td>
                        <td class="actions">
                          <button type="button" class="choice" onClick={() => setEdited(user.name)}>{words.edit}</button>
                          <RemoveButton busy={change.busy} remove={() => void change.run(() => tell("DELETE", path(user.name)))} />
                        </td>
                      </tr>
                    ),
                  )}
                </tbody>
              </table>
            </div>
          </>
        )}
      </Answered>
    </section>
  );
}

function path(name: string): string {
  return `${PATH}/${encodeURIComponent(name)}`;
}
