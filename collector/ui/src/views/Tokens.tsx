/** Tokens of scripts. */
import { useState } from "preact/hooks";
import { tell } from "../api/ask";
import type { Token } from "../api/types";
import { Answered, Editor, type Field, RecordButtons, idList, useChange } from "../parts/Records";
import { useAnswer } from "../parts/useAnswer";
import { Note, regionChoices, regionNames } from "../parts/bits";
import { now } from "../state";
import { format, t } from "../words";

const PATH = "/api/v1/tokens";
const DAY_MS = 86_400_000;

export default function Tokens() {
  const words = t();
  const answer = useAnswer<{ tokens: Token[] }>(PATH);
  const change = useChange(answer.again);
  const [made, setMade] = useState("");
  const [isOpen, setOpen] = useState(false);
  const fields: Field[] = [
    { name: "name", label: words.name },
    { name: "role", label: words.role, choices: Object.entries(words.roles) },
    { name: "days", label: words.expiresDays, kind: "number", optional: true },
    { name: "regions", label: words.regionsAllowed, several: regionChoices() },
  ];
  const add = (values: Record<string, string>) => {
    const days = Number(values["days"]);
    const expires = days > 0 && now.peek() !== null ? { expires_ms: (now.peek() ?? 0) + days * DAY_MS } : {};
    const body = { name: values["name"], role: values["role"], regions: idList(values["regions"] ?? ""), ...expires };
    setMade("");
    void change.run(async () => setMade((await tell<{ token: string }>("POST", PATH, body)).token)).then((done) => done && setOpen(false));
  };
  return (
    <section class="panel">
      <h1>{words.views.tokens}</h1>
      <Answered answer={answer}>
        {({ tokens }) => (
          <>
            {isOpen
              ? <Editor heading={words.addToken} fields={fields} isNew busy={change.busy} submit={add} cancel={() => setOpen(false)} />
              : <p class="actions"><button type="button" class="choice" onClick={() => setOpen(true)}>{words.addToken}</button></p>}
            {change.said}
            {made && <p class="good-news" role="status">{words.tokenOnce} <span class="secret">{made}</span></p>}
            {tokens.length === 0 ? <Note>{words.noTokens}</Note> : (
              <div class="table-scroll" tabIndex={0} role="group" aria-label={words.views.tokens}>
                <table>
                  <thead><tr><th scope="col">{words.name}</th><th scope="col">{words.role}</th><th scope="col">{words.kinds.regions}</th><th scope="col">{words.created}</th><th scope="col">{words.actor}</th><th scope="col">{words.expires}</th><th scope="col"><span class="skip">{words.remove}</span></th></tr></thead>
                  <tbody>
                    {tokens.map((token) => (
                      <tr key={token.id}>
                        <th scope="row">{token.name}</th>
                        <td>{words.roles[token.role] ?? token.role}</td>
                        <td>{regionNames(token.regions)}</td>
                        <td>{format.full(token.created_ms)}</td>
                        <td>{token.created_by}</td>
                        <td>{token.expires_ms === null ? words.never : format.full(token.expires_ms)}</td>
                        <td><RecordButtons name={token.name} busy={change.busy} remove={() => void change.run(() => tell("DELETE", `${PATH}/${token.id}`))} /></td>
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
