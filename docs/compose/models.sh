# What the one-shot service does: artefacts, proof, admin token.
set -eu
umask 022
abgate models build --root /models
abgate models verify --root /models
if [ ! -s /secrets/admin.token ]; then
  (umask 377 && rm -f /secrets/admin.token.new && python3 -c 'import secrets; print(secrets.token_urlsafe(32))' >/secrets/admin.token.new)
  mv /secrets/admin.token.new /secrets/admin.token
fi
